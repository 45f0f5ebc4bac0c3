"""Hostile models. What the reader makes of many more is in tests/distill/teachers/test_hostile.py."""

import pickle
from functools import partial

from tests.api.test_teacher_uploads import FILES
from tests.hostile.arrays import Bomb
from tests.hostile.case import Case

_CODES = {413: "too_large", 415: "unsupported_media", 422: "invalid_data"}
_MORE: dict[str, tuple[bytes, str, int, str, str]] = {
    "a bare pickle": (pickle.dumps(Bomb()), "&architecture=timm/test_resnet", 422, "/file", "unsafe_pickle"),
    "nothing": (b"", "", 422, "/file", "empty_file"),
}

CASES: list[Case] = [
    Case(
        name=f"a teacher: {name}",
        body=partial(bytes, content),
        path=f"/v1/models?name=t{query}",
        status=status,
        code=_CODES[status],
        entry=entry,
        pointer=pointer,
    )
    for name, (content, query, status, pointer, entry) in (FILES | _MORE).items()
]
