"""The one filter on tenants: a query that forgets to ask whose rows they are still finds its own alone."""

from collections.abc import Iterator

import pytest
from sqlalchemy import delete, exists, func, select, text, update
from sqlalchemy.orm import Session

from core.db import Database
from models import keys
from models.api_key import ApiKeyRow
from models.base import db_now
from models.dataset import DatasetRow
from models.event import EventRow
from models.job import JobRow
from models.project import ProjectRow
from models.tables import Base, metadata
from models.tenancy import SHARED, NoTenant, Tenant, confined, every_project
from models.worker import WorkerRow
from stillhouse.spec.ids import new_id


@pytest.fixture
def closed(database_url: str) -> Iterator[Database]:
    """The database as the API opens it."""
    made = confined(database_url)
    yield made
    made.close()


@pytest.fixture
def both(database: Database) -> tuple[str, str]:
    """Two projects with a key, a job and an event each."""
    found = []
    with database.write() as session:
        for name in ("mine", "theirs"):
            project = keys.project_named(session, name).id
            keys.issue(session, project, name=name)
            _add_job(session, project)
            found.append(project)
    return found[0], found[1]


def _add_job(session: Session, project: str) -> None:
    now, dataset, job = db_now(session), new_id("ds"), new_id("job")
    shared = {"project_id": project, "created_at": now}
    session.add(
        DatasetRow(
            id=dataset, name="d", format="csv", storage_key=dataset, bytes=1, sha256="0" * 64, facts={}, report={},
            **shared,
        )
    )  # fmt: skip
    session.flush()
    session.add(
        JobRow(
            id=job, status="queued", conditions=[], spec={}, resolved={}, labels={}, dataset_id=dataset,
            next_run_at=now, **shared,
        )
    )  # fmt: skip
    session.flush()
    session.add(
        EventRow(job_id=job, seq=1, type="status", level="info", message="", data={}, attempt=0, created_at=now)
    )


def test_every_table_is_a_projects_or_is_known_to_be_nobodys() -> None:
    for mapper in Base.registry.mappers:
        names = {column.name for column in mapper.local_table.columns}
        owned = mapper.class_ is ProjectRow or names & {"project_id", "job_id"}
        assert owned or mapper.class_ in SHARED, mapper
    assert {kind.__name__ for kind in SHARED} == {"WorkerRow", "StorageHoldRow"}
    assert len(metadata.tables) >= 14


def test_a_query_without_a_filter_finds_what_is_the_tenants_own(closed: Database, both: tuple[str, str]) -> None:
    mine, _ = both
    with Tenant(closed, mine).read() as session:
        assert [row.project_id for row in session.scalars(select(JobRow))] == [mine]
        assert list(session.scalars(select(ApiKeyRow.project_id))) == [mine]
        assert session.execute(select(func.count()).select_from(EventRow)).scalar_one() == 1
        joined = select(JobRow.project_id).join(DatasetRow, DatasetRow.id == JobRow.dataset_id)
        assert list(session.scalars(joined)) == [mine]
        assert list(session.scalars(select(ProjectRow.id))) == [mine]


def test_asking_for_a_foreign_row_by_its_id_finds_nothing(
    closed: Database, database: Database, both: tuple[str, str]
) -> None:
    mine, theirs = both
    with database.read() as session:
        foreign = session.scalars(select(JobRow.id).where(JobRow.project_id == theirs)).one()
    with Tenant(closed, mine).read() as session:
        assert session.get(JobRow, foreign) is None
        assert session.get(ProjectRow, theirs) is None
        assert session.get(EventRow, (foreign, 1)) is None
        inner = select(JobRow.id).where(JobRow.project_id == theirs)
        assert not session.execute(select(exists(inner))).scalar_one()
    with Tenant(closed, theirs).read() as session:
        assert session.get(JobRow, foreign) is not None


def test_a_write_without_a_filter_changes_nothing_foreign(
    closed: Database, database: Database, both: tuple[str, str]
) -> None:
    mine, theirs = both
    with Tenant(closed, mine).write() as session:
        session.execute(update(JobRow).values(name="mine now"))
        session.execute(delete(ApiKeyRow))
        session.execute(delete(EventRow))
    with database.read() as session:
        named = {row.project_id: row.name for row in session.scalars(select(JobRow))}
        assert named == {mine: "mine now", theirs: None}
        assert list(session.scalars(select(ApiKeyRow.project_id))) == [theirs]
        assert session.execute(select(func.count()).select_from(EventRow)).scalar_one() == 1


def test_a_session_of_no_project_shows_and_changes_nothing_of_any(closed: Database, both: tuple[str, str]) -> None:
    of_tables = select(func.count()).select_from(JobRow.__table__)
    for statement in (
        select(JobRow), select(JobRow.id), select(func.count()).select_from(JobRow), of_tables,
        select(exists(select(JobRow.id))), update(JobRow).values(name="x"), delete(EventRow), select(ProjectRow),
        select(WorkerRow.id).where(WorkerRow.id.in_(select(JobRow.worker_id))),
    ):  # fmt: skip
        with closed.write() as session, pytest.raises(NoTenant):
            session.execute(statement)
    with closed.read() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1
        assert session.execute(select(func.count()).select_from(WorkerRow)).scalar_one() == 0


def test_a_statement_on_tables_would_slip_through_and_is_refused(closed: Database, both: tuple[str, str]) -> None:
    with Tenant(closed, both[0]).read() as session, pytest.raises(NoTenant):
        session.execute(select(JobRow.__table__.c.id))


def test_finding_whose_key_it_is_sees_every_project(closed: Database, both: tuple[str, str]) -> None:
    with every_project(closed) as session:
        assert set(session.scalars(select(ApiKeyRow.project_id))) == set(both)
