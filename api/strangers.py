"""Callers whose keys open nothing, and how many connections an address holds: counted by address, in bounded memory.

Each process counts for itself. A key that was good lately is let through whatever its address did, because behind a
proxy the operator has not named, or a router, many callers share one.
"""

import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from threading import Lock

from stillhouse.spec.errors import RateLimited

_ADDRESSES = 10_000
_KEYS = 10_000
_IPV6_SUBSCRIBER_BITS = 64
"""An address of IPv6 costs nothing; the network of a subscriber does."""


def origin(address: str) -> str:
    """What is counted as one caller: an IPv4 address, or a /64 of IPv6."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ip_network((found, _IPV6_SUBSCRIBER_BITS), strict=False))
    return str(found)


class Strangers:
    """Wrong keys by address: `quota` in a minute, evenly refilled."""

    def __init__(self, *, quota: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._quota, self._clock = quota, clock
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """By origin: how many stand against it, and when that was true. The longest unheard of is forgotten first."""
        self._good: OrderedDict[str, None] = OrderedDict()
        self._lock = Lock()

    def admit(self, address: str, digest: str) -> None:
        """A key is shown; nothing is asked of the database before this. Raises RateLimited."""
        if not self._spent or digest in self._good:
            return
        with self._lock:
            against = self._against(origin(address))
        if against > self._quota - 1:
            raise self._too_many(against)

    def failed(self, address: str) -> None:
        """It opened nothing. Raises RateLimited when there were too many: the caller need not learn more."""
        name = origin(address)
        with self._lock:
            against = self._against(name)
            if against <= self._quota - 1:
                self._spent[name] = (against + 1, self._clock())
                self._spent.move_to_end(name)
                if len(self._spent) > _ADDRESSES:
                    self._spent.popitem(last=False)
                return
        raise self._too_many(against)

    def passed(self, digest: str) -> None:
        """It opened something."""
        if digest in self._good:
            return
        with self._lock:
            self._good[digest] = None
            if len(self._good) > _KEYS:
                self._good.popitem(last=False)

    def _against(self, name: str) -> float:
        count, at = self._spent.get(name, (0.0, 0.0))
        return max(0.0, count - (self._clock() - at) * self._quota / 60)

    def _too_many(self, against: float) -> RateLimited:
        seconds = max(1, math.ceil((against - (self._quota - 1)) * 60 / self._quota))
        error = RateLimited(
            f"More than {self._quota:,} wrong API keys came from this address within a minute.",
            hint=f"Wait {seconds} s, as Retry-After says, and check the key.",
        )
        error.retry_after_seconds = seconds
        return error


class Connections:
    """Open connections of one process, all together and by address. Used by the event loop alone."""

    def __init__(self, *, most: int, most_per_address: int, shared: tuple[str, ...] = ()) -> None:
        """`shared`: networks whose addresses stand for many callers, and are not counted by themselves."""
        self._most, self._most_per_address = most, most_per_address
        self._shared = [ip_network(network) for network in shared]
        self._open: Counter[str] = Counter()

    def opened(self, address: str) -> bool:
        """One more. False: there are too many, and it is to be closed at once. Either way it is `closed` later."""
        name = origin(address)
        self._open[name] += 1
        if self._open.total() > self._most:
            return False
        return self._open[name] <= self._most_per_address or self._is_shared(address)

    def closed(self, address: str) -> None:
        """One less."""
        name = origin(address)
        self._open[name] -= 1
        if self._open[name] <= 0:
            del self._open[name]

    def _is_shared(self, address: str) -> bool:
        try:
            found = ip_address(address.partition("%")[0])
        except ValueError:
            return True  # a socket of this machine has no address
        return any(found in network for network in self._shared)
