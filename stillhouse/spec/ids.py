"""Identifiers: a prefix that says what a thing is, then 26 characters that sort by time of creation."""

import re
import secrets
import time
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import StringConstraints

Prefix = Literal["job", "ds", "mdl", "prj", "key", "out", "evt", "req", "wrk", "hld", "aud"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case
_REST: Final = "[0-9a-hjkmnp-tv-z]{26}"
_JOB: Final = f"^job_{_REST}$"
_DATASET: Final = f"^ds_{_REST}$"
_MODEL: Final = f"^mdl_{_REST}$"

JobId = Annotated[str, StringConstraints(pattern=_JOB)]
DatasetId = Annotated[str, StringConstraints(pattern=_DATASET)]
ModelId = Annotated[str, StringConstraints(pattern=_MODEL)]

ID_PATTERN = re.compile(rf"[a-z]{{2,3}}_{_REST}")
"""The form of every id."""


class Named(NamedTuple):
    """What callers are told of the things that have one prefix."""

    noun: str
    listing: str
    """What lists the caller's own."""


NAMED: dict[str, Named] = {
    "job": Named("job", "GET /v1/jobs"),
    "ds": Named("dataset", "GET /v1/datasets"),
    "mdl": Named("model", "GET /v1/models"),
    "key": Named("key", "GET /v1/keys"),
    "out": Named("set of teacher outputs", "GET /v1/teacher-outputs"),
}
"""The things callers name by their ids, by prefix."""

_PREFIXES: dict[str, Prefix] = {_JOB: "job", _DATASET: "ds", _MODEL: "mdl"}
_EXAMPLE = "01k5zq3v8t2m4n6r9w0x7yacde"


def new_id(prefix: Prefix) -> str:
    """Return `prefix_` + a ULID: 48 bits of milliseconds, then 80 random bits."""
    value = (time.time_ns() // 1_000_000 << 80) | secrets.randbits(80)
    return f"{prefix}_" + "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))


def is_id(prefix: Prefix, text: str) -> bool:
    """True when `text` has the form of such an id."""
    return ID_PATTERN.fullmatch(text) is not None and text.partition("_")[0] == prefix


def id_wanted(prefix: Prefix, given: str) -> str:
    """What to give in place of `given`, which is no such id: a part of a sentence. Of `given` only its prefix is
    repeated: the rest may be secret."""
    other = given.partition("_")[0]
    confused = f", not that of a {NAMED[other].noun}" if other in NAMED and other != prefix else ""
    return f"the id of a {NAMED[prefix].noun}{confused}, such as {prefix}_{_EXAMPLE}"


def prefix_of(pattern: str) -> Prefix | None:
    """The prefix of the ids whose form is this regular expression of ours; None when it is of something else."""
    return _PREFIXES.get(pattern)
