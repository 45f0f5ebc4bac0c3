"""Addresses the service may be asked to call. One strict reading, so that who checks and who connects read the same.

Accepts the plain ASCII form of RFC 3986 without userinfo and fragment. What readers of URLs disagree about
(backslashes, control characters, `@`, numbers that some take for an IPv4 address) is refused, never repaired.
"""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Literal

MAX_URL_CHARACTERS = 2000

_LEGAL = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]+")
_URL = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?]*)(?P<path>/[^?]*)?(?P<query>\?.*)?", re.IGNORECASE)
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_\-]{0,61}[a-z0-9_])?")
# What the WHATWG URL standard calls "ends in a number": readers take such a host for an IPv4 address.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class BadUrl(ValueError):
    """The URL is not one the service would call; the message says what to change."""


@dataclass(frozen=True, kw_only=True)
class WebUrl:
    """A URL, read."""

    scheme: Literal["http", "https"]
    host: str
    """Lower case: a name, an IPv4 address, or an IPv6 address without its brackets."""
    port: int
    target: str
    """Path and query, as they were given."""

    @property
    def literal(self) -> IPv4Address | IPv6Address | None:
        """The address, when the host is one and not a name."""
        if ":" in self.host:
            return IPv6Address(self.host)
        return IPv4Address(self.host) if _ends_in_number(self.host) else None

    @property
    def authority(self) -> str:
        """The Host header: without the port where that is the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """Scheme, host and port. Paths and queries often hold secrets: this is what may be shown."""
        return f"{self.scheme}://{self.authority}"


def parse_url(text: str) -> WebUrl:
    """Read an absolute http or https URL. Raises BadUrl."""
    if len(text) > MAX_URL_CHARACTERS:
        raise BadUrl(f"A URL may have {MAX_URL_CHARACTERS} characters; this one has {len(text)}.")
    _check_characters(text)
    found = _URL.fullmatch(text)
    if found is None:
        raise BadUrl("Write the whole URL, beginning with https:// (or http://, where the operator allows it).")
    scheme: Literal["http", "https"] = "https" if found["scheme"].lower() == "https" else "http"
    host, port = _host_and_port(found["authority"], _DEFAULT_PORTS[scheme])
    return WebUrl(scheme=scheme, host=host, port=port, target=(found["path"] or "/") + (found["query"] or ""))


def _check_characters(text: str) -> None:
    if not text.isascii():
        raise BadUrl("Write the URL in ASCII: international names in their xn-- form, other characters as %XX.")
    if "\\" in text:
        raise BadUrl("A URL has no backslashes; write / or %5C.")
    if "#" in text:
        raise BadUrl("Leave out the fragment: what follows # is never sent.")
    if _LEGAL.fullmatch(text) is None:
        raise BadUrl("The URL has spaces, control characters or others that must be written as %XX.")


def _host_and_port(authority: str, default: int) -> tuple[str, int]:
    if "@" in authority:
        raise BadUrl("Leave out user name and password: deliveries are signed instead.")
    found = re.fullmatch(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(:(?P<port>.*))?", authority)
    if found is None:
        raise BadUrl("The host is not a name or an address; write an IPv6 address in brackets.")
    return _host(found["host"].lower()), default if found["port"] is None else _port(found["port"])


def _port(text: str) -> int:
    if re.fullmatch(r"[0-9]{1,5}", text) is None or not 1 <= int(text) <= 65_535:
        raise BadUrl("The port is a number from 1 to 65535.")
    return int(text)


def _host(host: str) -> str:
    if host.startswith("["):
        return _ipv6(host[1:-1])
    if host.endswith("."):
        raise BadUrl("Write the host without a dot at its end.")
    if not host or len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise BadUrl("The host is not a name: letters, digits and hyphens, with dots between.")
    if _ends_in_number(host):
        return _ipv4(host)
    return host


def _ends_in_number(host: str) -> bool:
    return _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _ipv4(host: str) -> str:
    try:
        return str(IPv4Address(host))
    except AddressValueError:
        raise BadUrl("Write an IPv4 address as four decimal numbers without leading zeros.") from None


def _ipv6(text: str) -> str:
    try:
        address = IPv6Address(text)
    except AddressValueError:
        raise BadUrl("What is in the brackets is not an IPv6 address.") from None
    if address.scope_id is not None:
        raise BadUrl("An address with a zone is good on one machine only; write it without.")
    return str(address)
