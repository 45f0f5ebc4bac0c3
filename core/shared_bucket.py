"""Token buckets that several API processes share: kept in the broker's Valkey, where there is one.

A broker that is away, slow or of another kind is no reason to refuse anybody: then there is no answer, and each
process counts for itself.
"""

import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.settings import Settings

_SECONDS = 0.25
_REST_SECONDS = 5.0
"""After a failure nobody asks for this long: a broker that is away must not slow every request down."""

# One step for all, so that two processes never take the same tokens. Time is the server's.
_TAKE = """
local quota, seconds, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1e6
local kept = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(kept[1]) or quota
tokens = math.min(quota, tokens + math.max(0, now - (tonumber(kept[2]) or now)) * quota / seconds)
local got = math.max(0, math.min(wanted, math.floor(tokens)))
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens - got), 'at', string.format('%.6f', now))
redis.call('EXPIRE', KEYS[1], math.ceil(seconds) + 1)
return {got, string.format('%.6f', tokens - got)}
"""


class SharedBuckets:
    """Takes tokens from buckets that begin full and refill evenly. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = f"stillhouse:{settings.queue}:"
        self._server: redis.Redis | None = None
        self._away_until = 0.0
        if settings.broker_url.startswith(("redis://", "rediss://")):
            self._server = redis.Redis.from_url(
                settings.broker_url,
                socket_timeout=_SECONDS,
                socket_connect_timeout=_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )

    def take(self, name: str, *, quota: int, seconds: float, wanted: int) -> tuple[int, float] | None:
        """Up to `wanted` tokens of the bucket `name`, and how many are left in it; None when nobody can tell."""
        if self._server is None or time.monotonic() < self._away_until:
            return None
        try:
            got, left = self._server.eval(_TAKE, 1, self._prefix + name, quota, seconds, wanted)
        except (redis.RedisError, OSError):
            self._away_until = time.monotonic() + _REST_SECONDS
            return None
        return int(got), float(left)

    def close(self) -> None:
        """Close pooled connections."""
        if self._server is not None:
            self._server.close()
