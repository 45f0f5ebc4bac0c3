"""What is said to somebody who gave something else where an id belongs."""

import re

import pytest

from stillhouse.spec.ids import NAMED, id_wanted, is_id, new_id
from tests.spec.bare import refused


@pytest.mark.parametrize(
    "given", ["foo", "", "ds_1", "DS_" + "0" * 26, "s3cret_" + "0" * 26, "\0", "ds_" + "0" * 26 + "\n"]
)
def test_what_is_no_id_is_answered_with_what_an_id_of_the_kind_looks_like_and_where_to_find_it(given: str) -> None:
    [(place, said)] = refused(dataset={"id": given}).items()
    example = re.fullmatch(r"Should be the id of a dataset, such as (\S+); GET /v1/datasets lists yours\.", said)
    assert place == "/dataset/id"
    assert example is not None
    assert is_id("ds", example[1])


def test_an_id_of_another_kind_is_named() -> None:
    said = refused(dataset={"id": new_id("mdl")}, teacher={"model": new_id("job")})
    assert said["/dataset/id"].startswith("Should be the id of a dataset, not that of a model, such as ds_")
    assert said["/teacher/model"].startswith("Should be the id of a model, not that of a job, such as mdl_")


def test_what_is_no_id_is_not_repeated_whatever_it_begins_with() -> None:
    assert "Canary" not in str(refused(dataset={"id": "key_Canary"}, teacher={"model": "Canary_1"}))


def test_every_kind_has_an_example_of_its_own_form() -> None:
    for prefix in NAMED:
        example = id_wanted(prefix, "").rpartition(" ")[2]  # type: ignore[arg-type]
        assert [other for other in NAMED if is_id(other, example)] == [prefix]  # type: ignore[arg-type]


def test_a_text_of_another_form_than_asked_is_not_told_of_ids() -> None:
    assert "id of" not in refused(name="../x")["/name"]
