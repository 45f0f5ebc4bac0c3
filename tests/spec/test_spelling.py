"""An unknown field is answered with the one that was meant, where one is like it."""

from typing import Any

import pytest

from stillhouse.spec import JobSpec
from stillhouse.spec.keys import KeyRequest
from tests.spec.bare import BARE, told

MLP = {"name": "mlp", "hidden": [4]}


@pytest.mark.parametrize(
    ("change", "place", "meant"),
    [
        ({"prority": 3}, "/prority", "priority"),
        ({"student": {"name": "mlp", "hiden": [3]}}, "/student/hiden", "hidden"),
        ({"student": {"budget": {"sizemb": 1}}}, "/student/budget/sizemb", "size_mb"),
        (
            {"student": {"budget": {"size_mb": 1}, "candidates": [{**MLP, "hiden": 1}]}},
            "/student/candidates/0/hiden",
            None,
        ),
        ({"teacher": {"train": {"architecture": MLP, "epoch": 3}}}, "/teacher/train/epoch", "epochs"),
        ({"losses": [{"kind": "ce", "label_smothing": 0.1}]}, "/losses/0/label_smothing", "label_smoothing"),
        ({"losses": [{"kind": "kd", "label_smothing": 0.1}]}, "/losses/0/label_smothing", None),
        ({"TEMPERATURE": 3}, "/TEMPERATURE", "temperature"),
        ({"training": {"Batch-Size": 3}}, "/training/Batch-Size", "batch_size"),
        ({"training": {"bananas": 1}}, "/training/bananas", None),
        ({"temprature": 3, "temperature": 4}, "/temprature", None),
    ],
)
def test_the_field_that_was_meant_is_one_of_that_place_and_kind_and_not_given(
    change: dict[str, Any], place: str, meant: str | None
) -> None:
    says = "There is no such field." if meant is None else f"There is no such field; did you mean {meant}?"
    assert told(BARE | change) == {place: says}


def test_other_bodies_are_answered_the_same_way() -> None:
    assert told({"name": "x", "expires_in_day": 3}, KeyRequest) == {
        "/expires_in_day": "There is no such field; did you mean expires_in_days?"
    }


def test_a_secret_written_where_a_name_belongs_is_not_repeated_beside_its_pointer() -> None:
    secret = "sk_live_temperature_4eC39HqLyjWDarjtT1zdp7dc"
    assert told(BARE | {secret: 1, "temperature_": "sk_live_4eC39"}) == {
        f"/{secret}": "There is no such field.",
        "/temperature_": "There is no such field; did you mean temperature?",
    }


@pytest.mark.parametrize("steps", [{"temperature" * 90_000: 1}, {"student": {"name": "mlp", "student": {"name": {}}}}])
def test_wild_names_have_no_meaning(steps: dict[str, Any]) -> None:
    assert all("mean" not in detail for detail in told(BARE | steps).values())


def test_of_thousands_of_unknown_fields_only_the_first_are_compared() -> None:
    details = list(told(BARE | {f"temperatur{n}": 1 for n in range(1000)}).values())
    assert [("did you mean" in detail) for detail in details] == [True] * 20 + [False] * 980


def test_tens_of_thousands_of_wrong_values_are_each_told_and_the_list_they_are_in_is_not() -> None:
    """With each compared to each this takes many minutes."""
    details = told(BARE | {"student": {"name": "mlp", "hidden": ["a"] * 60_000}})
    assert list(details) == [f"/student/hidden/{n}" for n in range(60_000)]


MODEL, DATASET = "mdl_" + "0" * 26, "ds_" + "0" * 26


@pytest.mark.parametrize(
    ("change", "place", "example"),
    [
        ({"dataset": DATASET}, "/dataset", f'{{"id": "{DATASET}"}}'),
        ({"dataset": "digits"}, "/dataset", '{"builtin": "digits"}'),
        ({"dataset": "my flowers"}, "/dataset", '{"builtin": …, "id": …}'),
        ({"teacher": MODEL}, "/teacher", f'{{"model": "{MODEL}"}}'),
        ({"teacher": "previous"}, "/teacher", '{"previous": …}'),
        (
            {"teacher": {"ensemble": {"members": [MODEL, {"model": MODEL}]}}},
            "/teacher/ensemble/members/0",
            f'{{"model": "{MODEL}"}}',
        ),
        ({"teacher": {"train": {"architecture": "cnn"}}}, "/teacher/train/architecture", '{"name": "cnn"}'),
        ({"student": "mlp"}, "/student", '{"name": "mlp"}'),
        ({"losses": ["kd"]}, "/losses/0", '{"kind": "kd"}'),
        ({"resources": "cuda"}, "/resources", '{"device": "cuda"}'),
        ({"webhook": "https://example.org/hook?token=s3cret"}, "/webhook", '{"url": …}'),
        ({"finetune": True}, "/finetune", '{"epochs": …, "learning_rate": …, "label_smoothing": …}'),
    ],
)
def test_a_bare_value_where_an_object_belongs_is_answered_with_the_object(
    change: dict[str, Any], place: str, example: str
) -> None:
    assert told(BARE | change) == {place: f"Should be an object with named fields: {example}."}


def test_an_object_made_as_shown_is_taken() -> None:
    for change in ({"dataset": {"id": DATASET}}, {"teacher": {"model": MODEL}}, {"losses": [{"kind": "kd"}]}):
        JobSpec.model_validate(BARE | change)


def test_a_bare_value_where_a_list_belongs_is_told_so_in_the_words_of_json() -> None:
    assert told(BARE | {"losses": "kd"}) == {"/losses": "Should be a list, or auto."}


def test_a_list_of_the_wrong_length_is_told_how_long_it_should_be() -> None:
    assert told(BARE | {"losses": []}) == {"/losses": "Should have at least 1 item, not 0, or auto."}
    assert told(BARE | {"stages": []}) == {"/stages": "Should have at least 1 item, not 0."}
    many = [{"losses": [{"kind": "ce"}]}] * 9
    assert told(BARE | {"stages": many}) == {"/stages": "Should have at most 8 items, not 9."}
