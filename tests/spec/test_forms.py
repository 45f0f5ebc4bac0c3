"""A text of another form than asked is answered with the form in words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stillhouse.spec.forms import worded
from stillhouse.spec.ids import prefix_of
from tests.spec.bare import refused

OPENAPI = Path(__file__).parents[2] / "docs" / "openapi.json"
OF_A_SECRET = r"^[a-z0-9][a-z0-9\-]{0,62}$"
"""Checked by a rule that also says how to store one."""


def patterns(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        yield from (value for key, value in document.items() if key == "pattern" and isinstance(value, str))
        document = list(document.values())
    if isinstance(document, list):
        for part in document:
            yield from patterns(part)


def test_every_form_a_client_is_held_to_has_words() -> None:
    found = set(patterns(json.loads(OPENAPI.read_text())))
    assert len(found) > 5
    assert {one for one in found if worded(one) is None and prefix_of(one) is None} == {OF_A_SECRET}


@pytest.mark.parametrize(
    ("change", "place", "said"),
    [
        ({"name": "../x"}, "/name", "Should begin with a letter or digit"),
        ({"name": "a\nb"}, "/name", "Should begin with a letter or digit"),
        ({"labels": {"a": "b\0c"}}, "/labels/a", "Should be one line without control characters."),
        (
            {"losses": [{"kind": "similarity", "layers": [{"teacher": "a b", "student": "x"}]}]},
            "/losses/0/layers/0/teacher",
            "Should be the path of a layer, such as network.2",
        ),
    ],
)
def test_the_words_stand_where_the_text_does(change: dict[str, Any], place: str, said: str) -> None:
    assert refused(**change)[place].startswith(said)
