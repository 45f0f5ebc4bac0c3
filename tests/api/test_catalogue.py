"""What students cost on some data, told before a job is written."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from stillhouse.spec import STUDENTS, DataFacts
from stillhouse.spec.students import Cnn


def by_name(http: TestClient, **query: Any) -> dict[str, Any]:
    answer = http.get("/v1/students", params=query)
    assert answer.status_code == 200, answer.text
    return {entry["name"]: entry for entry in answer.json()["data"]}


def test_without_data_no_size_is_claimed(http: TestClient) -> None:
    assert all(entry["sizes"] == [] and entry["misfit"] is None for entry in by_name(http).values())


def test_for_a_shape_every_family_lists_students_that_fit(http: TestClient) -> None:
    entries = by_name(http, shape="1,8,8", classes=10)
    assert list(entries) == list(STUDENTS)
    digits = DataFacts(
        task="image-classification", shape=(1, 8, 8), dtype="uint8", classes=tuple("0123456789"), rows={}
    )
    default = Cnn(name="cnn")
    sizes = {tuple(size["student"]["channels"]): size for size in entries["cnn"]["sizes"]}
    assert sizes[default.channels]["parameters"] == default.parameters(digits) == 24_058
    assert sizes[default.channels]["macs"] == default.macs(digits)
    assert sizes[default.channels]["size_bytes"] == default.file_bytes(digits)


def test_what_fits_no_step_says_why(http: TestClient) -> None:
    entries = by_name(http, shape="30", classes=2)
    assert entries["cnn"]["sizes"] == []
    assert "use mlp" in entries["cnn"]["misfit"]
    assert entries["mlp"]["sizes"]
    assert entries["mlp"]["misfit"] is None


def test_for_a_dataset_the_sizes_are_those_of_its_shape(http: TestClient, digits: str) -> None:
    assert by_name(http, dataset=digits) == by_name(http, shape="1,8,8", classes=10)


def test_a_dataset_nobody_has_is_not_found(http: TestClient) -> None:
    for dataset in ("ds_" + "0" * 26, "digits", ""):
        assert http.get("/v1/students", params={"dataset": dataset}).status_code == 404


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({"shape": "1,8", "classes": 3}, "?shape"),
        ({"shape": "0,8,8", "classes": 3}, "?shape"),
        ({"shape": "1,8,8"}, "?classes"),
        ({"classes": 3}, "?classes"),
        ({"shape": "1,8,8", "classes": 1}, "?classes"),
        ({"shape": "8", "classes": 2, "dataset": "ds_" + "0" * 26}, "?shape"),
        ({"form": "8"}, "?form"),
    ],
)
def test_a_question_that_makes_no_sense_names_the_parameter(
    http: TestClient, query: dict[str, Any], place: str
) -> None:
    answer = http.get("/v1/students", params=query)
    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [place]
