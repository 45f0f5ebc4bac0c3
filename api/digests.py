"""Digest fields (RFC 9530): the caller says what should have arrived."""

import re
from base64 import b64decode

from starlette.datastructures import Headers

from stillhouse.spec.errors import Invalid, InvalidData

_NAMES = ("repr-digest", "content-digest")
# One member of a structured dictionary whose value is a byte sequence. Other algorithms pass unread.
_SHA256 = re.compile(r"(?:^|,)\s*sha-256\s*=\s*(?P<value>[^,]*)", re.IGNORECASE)
_BYTES = re.compile(r":(?P<base64>[A-Za-z0-9+/]{43}=):")


def expected_sha256(headers: Headers) -> bytes | None:
    """The SHA-256 the caller announces for the body; None without one. Raises Invalid for one that is none."""
    for name in _NAMES:
        found = _SHA256.search(headers.get(name, ""))
        if found is None:
            continue
        value = _BYTES.fullmatch(found["value"].strip())
        if value is None:
            raise Invalid.at(
                f"header:{name.title()}",
                "bad_digest",
                "The digest is written sha-256=:…: with the 44 base64 characters of 32 bytes between the colons.",
            )
        return b64decode(value["base64"])
    return None


def check(expected: bytes | None, actual: bytes) -> None:
    """Raises InvalidData when something else arrived than was announced."""
    if expected is not None and expected != actual:
        raise InvalidData.at(
            "/file",
            "digest_mismatch",
            "The bytes that arrived are not those the digest announces: the upload was cut or changed on its way.",
            hint="Send the file again.",
        )
