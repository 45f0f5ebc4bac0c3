"""Lists come in pages; callers see one iterator."""

from collections.abc import Iterator
from typing import Any, TypeVar

from stillhouse.client.transport import Params, Transport, parse
from stillhouse.spec.views import Page

Item = TypeVar("Item")


def each(
    transport: Transport, path: str, item: type[Item], *, params: Params | None = None, limit: int | None = None
) -> Iterator[Item]:
    """Yield up to `limit` items of a list (None: all), asking for the next page only when it is needed."""
    left = limit
    query: dict[str, Any] = dict(params or {})
    while left is None or left > 0:
        page = page_of(transport, path, item, {**query, "limit": None if left is None else min(left, 100)})
        yield from page.data if left is None else page.data[:left]
        left = None if left is None else left - len(page.data)
        if not page.has_more or page.next_cursor is None:
            return
        query["after"] = page.next_cursor


def page_of(transport: Transport, path: str, item: type[Item], params: Params) -> Page[Item]:
    """One page."""
    return parse(Page[item], transport.get(path, params))  # type: ignore[valid-type]
