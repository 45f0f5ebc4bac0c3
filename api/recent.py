"""A finding that costs something, asked for by anybody: made once at a time, and shared while it is fresh."""

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from starlette.concurrency import run_in_threadpool

Found = TypeVar("Found")


class Recent(Generic[Found]):
    """Keeps one finding for some time. Those who ask meanwhile wait for it and hold no thread."""

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._lock = asyncio.Lock()
        self._found: tuple[float, Found] | None = None

    async def get(self, find: Callable[[], Found]) -> Found:
        """The finding, from a thread when it must be made."""
        async with self._lock:
            if self._found is None or time.monotonic() - self._found[0] > self._seconds:
                found = await run_in_threadpool(find)
                self._found = (time.monotonic(), found)
            return self._found[1]
