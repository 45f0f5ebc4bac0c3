"""Conditional requests (RFC 9110 §13): what the caller already has."""


def quoted(tag: str) -> str:
    """A strong entity tag."""
    return f'"{tag}"'


def none_match(header: bytes | None, etag: bytes) -> bool:
    """True when If-None-Match names `etag`, so that 304 is the answer. Compared weakly, as the RFC says."""
    if header is None:
        return False
    if header == etag or header.strip() == b"*":
        return True
    return any(item.strip().removeprefix(b"W/") == etag for item in header.split(b","))


def range_applies(if_range: str | None, etag: str) -> bool:
    """True when a Range header is to be honoured: there is no If-Range, or it names `etag` (compared strongly)."""
    return if_range is None or if_range.strip() == etag
