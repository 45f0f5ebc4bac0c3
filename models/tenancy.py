"""The one place where a project's rows are told from those of others.

A session of the API belongs to one project. Every SELECT, UPDATE and DELETE on it gets the condition that its rows are
that project's, whoever wrote the query and whatever it asks for: one that forgets to filter finds nothing foreign. A
session that belongs to no project refuses such statements.

Workers and operators' commands work for all projects: their sessions say nothing of tenants, and are let through.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import Table, event, exists
from sqlalchemy.orm import Mapper, ORMExecuteState, Session, with_loader_criteria
from sqlalchemy.sql import visitors

from core.db import Database
from models.job import JobRow
from models.project import ProjectRow
from models.storage_hold import StorageHoldRow
from models.tables import Base
from models.worker import WorkerRow

_TENANT = "tenant"
_ANY = object()
SHARED: frozenset[type[Base]] = frozenset({WorkerRow, StorageHoldRow})
"""Tables that belong to no project. What they hold of a project is nothing."""


class NoTenant(Exception):
    """A statement on a project's rows, on a session that belongs to no project: open it with `Tenant`."""


def confined(url: str) -> Database:
    """The API's database: its sessions see nothing of any project until they are opened for one."""
    return Database(url, info={_TENANT: None})


@dataclass(frozen=True, slots=True)
class Tenant:
    """The database as one project sees it."""

    database: Database
    project_id: str

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A transaction for reading."""
        with self.database.read({_TENANT: self.project_id}) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that commits at the end of the block."""
        with self.database.write({_TENANT: self.project_id}) as session:
            yield session


@contextmanager
def every_project(database: Database, *, write: bool = False) -> Iterator[Session]:
    """A session for what stands above projects: finding whose key a caller shows, and noting its use."""
    opened = database.write if write else database.read
    with opened({_TENANT: _ANY}) as session:
        yield session


@event.listens_for(Session, "do_orm_execute")
def _confine(state: ORMExecuteState) -> None:
    tenant = state.session.info.get(_TENANT, _ANY)
    if tenant is _ANY or state.is_insert:
        return
    if tenant is None or not state.is_orm_statement:
        # A statement on tables instead of classes gets no condition, so it may name none of a project's.
        _refuse_owned(state.statement)
    else:
        state.statement = state.statement.options(*_conditions(tenant))


def _refuse_owned(statement: Any) -> None:
    owned = {str(mapper.local_table) for mapper in _owned()}
    if any(isinstance(part, Table) and part.name in owned for part in visitors.iterate(statement)):
        raise NoTenant


@cache
def _owned() -> tuple[Mapper[Any], ...]:
    return tuple(mapper for mapper in Base.registry.mappers if mapper.class_ not in SHARED)


@lru_cache(maxsize=1024)
def _conditions(project_id: str) -> tuple[Any, ...]:
    return tuple(
        with_loader_criteria(mapper.class_, _condition(mapper.class_, project_id), include_aliases=True)
        for mapper in _owned()
    )


def _condition(kind: Any, project_id: str) -> Any:
    if kind is ProjectRow:
        return kind.id == project_id
    if hasattr(kind, "project_id"):
        return kind.project_id == project_id
    # What has no project of its own has that of its job. The table, not the class, so that no condition is put on it.
    owner = JobRow.__table__.alias()
    return exists().where(owner.c.id == kind.job_id, owner.c.project_id == project_id)
