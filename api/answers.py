"""Answers about jobs that are ready to be sent, kept while their jobs do not change; of those that wait, a second."""

import math
import time
from collections import OrderedDict
from dataclasses import dataclass

from api import conditional

CACHED_JOBS = 1024

RawHeaders = list[tuple[bytes, bytes]]
Ready = tuple[int, RawHeaders, bytes]
"""Status, headers, body."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A job's answer, ready to be sent."""

    version: int
    etag: bytes
    body: bytes
    headers: RawHeaders
    headers_unchanged: RawHeaders
    """Of a 304."""
    until: float = math.inf
    """Monotonic time after which it is worked out anew, though the job has not changed."""

    def to(self, headers: dict[bytes, bytes]) -> Ready:
        """What a request with these headers gets: the job, or the word that the caller has it already."""
        if conditional.none_match(headers.get(b"if-none-match"), self.etag):
            return 304, self.headers_unchanged, b""
        return 200, self.headers, self.body


class Answers:
    """The latest answers by job id, the least recently used dropped first."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Answer] = OrderedDict()

    def get(self, job_id: str, version: int) -> Answer | None:
        """The answer, when it is that of this version."""
        found = self._kept.get(job_id)
        if found is None or found.version != version or time.monotonic() > found.until:
            return None
        self._kept.move_to_end(job_id)
        return found

    def keep(self, job_id: str, answer: Answer) -> None:
        """Keep for the next caller."""
        self._kept[job_id] = answer
        self._kept.move_to_end(job_id)
        if len(self._kept) > CACHED_JOBS:
            self._kept.popitem(last=False)
