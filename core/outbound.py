"""The guard for outgoing URLs: every address a caller names is judged here before anything is sent to it.

Checking a name and letting a library look it up again loses to a name server that answers twice (DNS rebinding). So a
name is looked up once, every address it has is judged, and `core.pinned` connects to those addresses and no others.

OutboundError
├── Refused        the URL itself is not allowed; the sentence says what to change
├── NoAnswer       no allowed address, or nothing valid came in time: not told apart, or a caller could map our network
└── BadCertificate the other side is not who its name says
"""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import ClassVar

from core.settings import Settings
from stillhouse.spec.web_url import BadUrl, WebUrl, parse_url

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

Resolve = Callable[[str, int], Sequence[str]]
"""(host, port) → all its addresses. Raises OSError."""

# Hosts with more addresses are served by the first few.
_ADDRESSES_TRIED = 4
_FIRST_FREE_PORT = 1024

# The IANA special-purpose registries (RFC 6890 and updates), and one address of a cloud that lies outside of them.
_CLOSED_V4 = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private
        "100.64.0.0/10",  # carriers' NAT, and a cloud's metadata
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's host agent
        "169.254.0.0/16",  # link-local, and most clouds' metadata
        "172.16.0.0/12",  # private
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
# Of IPv6, only global unicast is open: that leaves out loopback, link-local, unique local, multicast, NAT64.
_OPEN_V6 = IPv6Network("2000::/3")
_CLOSED_V6 = tuple(
    IPv6Network(text)
    for text in (
        "2001::/23",  # protocol assignments, Teredo
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3fff::/20",  # documentation
    )
)


class OutboundError(Exception):
    """Nothing was delivered. `code` and the sentence may be shown to the caller; `reason` is for the log alone."""

    code: ClassVar[str] = "no_answer"

    def __init__(self, detail: str, *, reason: str) -> None:
        super().__init__(detail)
        self.detail, self.reason = detail, reason


class Refused(OutboundError):
    """The URL is not allowed."""

    code = "url_not_allowed"


class NoAnswer(OutboundError):
    """The host has no address the service may call, or gave no valid answer in time."""

    code = "no_answer"

    def __init__(self, *, reason: str) -> None:
        super().__init__("The host has no address the service may call, or gave no valid answer.", reason=reason)


class BadCertificate(OutboundError):
    """The TLS certificate is not valid for the name."""

    code = "certificate"

    def __init__(self, *, reason: str) -> None:
        super().__init__("The TLS certificate is not valid for this name.", reason=reason)


@dataclass(frozen=True, kw_only=True)
class Target:
    """A URL and the addresses it may be reached at: looked up once, all judged."""

    url: WebUrl
    addresses: tuple[str, ...]


def look_up(host: str, port: int) -> list[str]:
    """All addresses of a host, as the system's resolver gives them. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """Judges URLs."""

    def __init__(self, *, allow: Sequence[str] = (), plain_http: bool = False, resolve: Resolve = look_up) -> None:
        """`allow`: networks, as CIDR, that are open although they are not public. `plain_http`: http is allowed."""
        self._allow: tuple[Network, ...] = tuple(ip_network(text) for text in allow)
        self._plain_http, self._resolve = plain_http, resolve

    @classmethod
    def of(cls, settings: Settings) -> "Guard":
        """The guard the operator wants."""
        return cls(allow=settings.outbound_allow, plain_http=settings.outbound_http)

    def check_url(self, text: str) -> WebUrl:
        """Judge what can be judged without looking anything up: form, scheme, port, and a host that is an address.

        Raises Refused.
        """
        try:
            url = parse_url(text)
        except BadUrl as error:
            raise Refused(str(error), reason="syntax") from None
        if url.scheme == "http" and not self._plain_http:
            raise Refused("Use https: plain http is not allowed here.", reason="http")
        if url.port not in (80 if url.scheme == "http" else 443, *range(_FIRST_FREE_PORT, 65_536)):
            sentence = f"Leave out the port, or use one from {_FIRST_FREE_PORT}; others belong to other services."
            raise Refused(sentence, reason="port")
        address = _spelled_out(url)
        if address is not None and not self.allows(address):
            raise Refused("Use a public host: this address is not one the service may call.", reason="address")
        return url

    def locate(self, text: str) -> Target:
        """Judge a URL in full, with the one look-up there will be. Raises Refused, NoAnswer."""
        url = self.check_url(text)
        if url.literal is not None:
            return Target(url=url, addresses=(str(_unmapped(url.literal)),))
        try:
            found = [ip_address(text.partition("%")[0]) for text in self._resolve(url.host, url.port)]
        except (OSError, UnicodeError, ValueError):
            raise NoAnswer(reason="unresolved") from None
        # One closed address among open ones is enough: the name serves more than one master.
        if not found or not all(self.allows(address) for address in found):
            raise NoAnswer(reason="address not allowed")
        return Target(url=url, addresses=tuple(str(_unmapped(address)) for address in found[:_ADDRESSES_TRIED]))

    def allows(self, address: Address) -> bool:
        """True when the address is public, or in a network the operator opened."""
        address = _unmapped(address)
        if any(address in network for network in self._allow):
            return True
        if isinstance(address, IPv4Address):
            return not any(address in network for network in _CLOSED_V4)
        return address in _OPEN_V6 and not any(address in network for network in _CLOSED_V6)


def _spelled_out(url: WebUrl) -> Address | None:
    # RFC 6761: localhost and all below it are loopback, whatever a name server says.
    if url.host == "localhost" or url.host.endswith(".localhost"):
        return IPv4Address("127.0.0.1")
    return url.literal


def _unmapped(address: Address) -> Address:
    """The system connects to the IPv4 address inside ::ffff:0:0/96, so that is the one to judge and to use."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
