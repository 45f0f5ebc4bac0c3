"""Identifiers: a prefix that says what a thing is, then 26 characters that sort by time of creation."""

import re
import secrets
import time
from typing import Annotated, Literal

from pydantic import StringConstraints

Prefix = Literal["job", "ds", "mdl", "prj", "key", "out", "evt", "req", "wrk", "hld", "aud"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case


def new_id(prefix: Prefix) -> str:
    """Return `prefix_` + a ULID: 48 bits of milliseconds, then 80 random bits."""
    value = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    return f"{prefix}_" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


JobId = Annotated[str, StringConstraints(pattern=r"^job_[0-9a-hjkmnp-tv-z]{26}$")]
DatasetId = Annotated[str, StringConstraints(pattern=r"^ds_[0-9a-hjkmnp-tv-z]{26}$")]
ModelId = Annotated[str, StringConstraints(pattern=r"^mdl_[0-9a-hjkmnp-tv-z]{26}$")]

ID_PATTERN = re.compile(r"[a-z]{2,3}_[0-9a-hjkmnp-tv-z]{26}")
"""The form of every id."""
