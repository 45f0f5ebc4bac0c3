"""Lists in pages: newest first, with a signed cursor to read on."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol, TypeVar

from pydantic import Field

from api.parts import Parts
from stillhouse.spec.base import Contract
from stillhouse.spec.views import Page

DEFAULT_LIMIT = 20
MAX_LIMIT = 100


class PageQuery(Contract, strict=False):
    """Which page of a list."""

    after: Annotated[str, Field(max_length=500)] | None = None
    """`next_cursor` of the page before."""
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT


class TrashQuery(PageQuery):
    """Which page of a list of things that can be deleted."""

    deleted: bool = False
    """true: what is in the trash. false: everything else."""


class HasId(Protocol):
    """A row of a list."""

    id: Any


Row = TypeVar("Row", bound=HasId)
View = TypeVar("View")


def start_of(parts: Parts, project_id: str, list_name: str, query: PageQuery) -> str | None:
    """The id after which the page begins; None for the first."""
    return None if query.after is None else parts.cursors.read(project_id, list_name, query.after)


def page_of(
    parts: Parts,
    project_id: str,
    list_name: str,
    query: PageQuery,
    rows: Sequence[Row],
    view: Callable[[Row], View],
) -> Page[View]:
    """The page of `rows`, which are up to one more than the query's limit."""
    shown = rows[: query.limit]
    has_more = len(rows) > query.limit
    cursor = parts.cursors.issue(project_id, list_name, shown[-1].id) if has_more else None
    # Every field is given, so that an answer without its unset fields is still whole.
    return Page(object="list", data=[view(row) for row in shown], has_more=has_more, next_cursor=cursor)
