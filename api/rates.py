"""How often a caller may ask: token buckets, with the headers of the IETF's draft on rate limits.

A process takes tokens from the shared bucket some at a time and spends them without asking anybody, so that a poll
costs no trip to the broker: a hundredth of the quota, 500 at most. What is taken is spent, be it later: after a rest
a caller may have those few on top of a full bucket. While the broker is away, each process counts for itself and so
up to the quota each.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from core.shared_bucket import SharedBuckets
from stillhouse.spec.errors import RateLimited

_OWNERS = 10_000
"""Buckets kept at most; a forgotten one begins anew, at what the shared one says."""
_MOST_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a caller stands after a request."""

    name: str
    quota: int
    seconds: int
    left: int
    wait: float = 0.0
    """Seconds until there is a token; 0 when this request got one."""

    @property
    def policy_header(self) -> str:
        """Member of RateLimit-Policy."""
        return f'"{self.name}";q={self.quota};w={self.seconds}'

    @property
    def header(self) -> str:
        """Member of RateLimit: what is left, and in how many seconds the bucket is full again."""
        return f'"{self.name}";r={self.left};t={math.ceil((self.quota - self.left) * self.seconds / self.quota)}'


@dataclass(slots=True)
class _Purse:
    """What this process holds of one bucket."""

    quota: int
    tokens: int = 0
    left: float = 0.0
    """In the shared bucket, when it was last asked."""
    empty_until: float = 0.0
    own: float = 0.0
    """Tokens of this process's own bucket, for when there is no shared one."""
    own_at: float = field(default=0.0)


class Rate:
    """One policy: `quota` tokens per owner, refilled evenly over `seconds`."""

    def __init__(
        self,
        name: str,
        *,
        quota: int,
        seconds: int,
        shared: SharedBuckets,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name, self._quota, self._seconds = name, quota, seconds
        self._shared, self._clock = shared, clock
        self._purses: OrderedDict[str, _Purse] = OrderedDict()
        self._lock = Lock()

    def at_once(self, owner: str) -> Standing | None:
        """Spend a token this process holds. None: it holds none, ask `spend`."""
        with self._lock:
            purse = self._purses.get(owner)
            return None if purse is None or purse.tokens < 1 else self._paid(purse)

    def spend(self, owner: str, *, quota: int | None = None) -> Standing:
        """Spend a token; may ask the broker. The answer says when there is none. `quota`: in place of the policy's."""
        with self._lock:
            purse = self._purse(owner, quota or self._quota)
            if purse.tokens >= 1:
                return self._paid(purse)
            if (wait := purse.empty_until - self._clock()) > 0:
                return self._standing(purse, 0, wait)
            name, quota = f"{self._name}:{owner}", purse.quota
        taken = self._shared.take(name, quota=quota, seconds=self._seconds, wanted=_batch(quota))
        with self._lock:
            got, purse.left = self._take_own(purse) if taken is None else taken
            purse.tokens += got
            if purse.tokens >= 1:
                return self._paid(purse)
            wait = (1 - purse.left) * self._seconds / purse.quota
            purse.empty_until = self._clock() + wait
            return self._standing(purse, 0, wait)

    def _purse(self, owner: str, quota: int) -> _Purse:
        purse = self._purses.get(owner)
        if purse is None or purse.quota != quota:  # an operator's change begins a new purse
            purse = self._purses[owner] = _Purse(quota=quota, own=float(quota), own_at=self._clock())
            if len(self._purses) > _OWNERS:
                self._purses.popitem(last=False)
        self._purses.move_to_end(owner)
        return purse

    def _take_own(self, purse: _Purse) -> tuple[int, float]:
        now = self._clock()
        purse.own = min(purse.quota, purse.own + (now - purse.own_at) * purse.quota / self._seconds)
        purse.own_at = now
        got = min(_batch(purse.quota), math.floor(purse.own))
        purse.own -= got
        return got, purse.own

    def _paid(self, purse: _Purse) -> Standing:
        purse.tokens -= 1
        return self._standing(purse, purse.tokens + math.floor(purse.left), 0.0)

    def _standing(self, purse: _Purse, left: int, wait: float) -> Standing:
        return Standing(self._name, purse.quota, self._seconds, min(left, purse.quota), wait)


def _batch(quota: int) -> int:
    """Tokens taken at once."""
    return min(_MOST_AT_ONCE, max(1, quota // 100))


def note(state: dict[str, Any], standing: Standing) -> None:
    """Have the answer's headers tell. Raises RateLimited when there was no token."""
    state.setdefault("rates", []).append(standing)
    if standing.wait > 0:
        seconds = math.ceil(standing.wait)
        error = RateLimited(
            f"The limit of {standing.quota:,} {standing.name} in {standing.seconds:,} seconds is reached.",
            hint=f"Wait {seconds} s, as Retry-After says, and ask less often.",
        )
        error.retry_after_seconds = seconds
        raise error


def headers(rates: list[Standing]) -> list[tuple[bytes, bytes]]:
    """RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10)."""
    return [
        (b"ratelimit-policy", ", ".join(rate.policy_header for rate in rates).encode()),
        (b"ratelimit", ", ".join(rate.header for rate in rates).encode()),
    ]
