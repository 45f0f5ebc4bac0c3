"""Specs that must be refused: status, code, place of the mistake, and that nothing is left of them."""

import json
from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.settings import Settings
from stillhouse.spec.errors import Problem
from stillhouse.spec.limits import Limits
from tests.api.conftest import Traces
from tests.house import SPEC


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def settings(settings: Settings) -> Settings:
    tight = Limits(max_epochs=500, max_parameters=100_000, max_batch_size=512, max_hours=10, max_body_bytes=20_000)
    return settings.model_copy(update={"limits": tight})


# What is changed in a good spec → pointer and code of the one entry.
FIELDS: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown field": ({"temprature": 4}, "/temprature", "unknown_field"),
    "unknown field deep inside": ({"student": {"name": "mlp", "hiden": [8]}}, "/student/hiden", "unknown_field"),
    "mass assignment": ({"status": "succeeded"}, "/status", "unknown_field"),
    "text for a number": ({"temperature": "4"}, "/temperature", "float_type"),
    "a fraction of an epoch": ({"training": {"epochs": 1.5}}, "/training/epochs", "int_type"),
    "true for one": ({"training": {"epochs": True}}, "/training/epochs", "int_type"),
    "null for a student": ({"student": None}, "/student", "not_an_object"),
    "a list for a teacher": ({"teacher": []}, "/teacher", "not_an_object"),
    "T = 0": ({"temperature": 0}, "/temperature", "greater_than"),
    "T < 0": ({"temperature": -1}, "/temperature", "greater_than"),
    "T too large": ({"temperature": 1e30}, "/temperature", "less_than_equal"),
    "T = 0 in the loss": ({"losses": [{"kind": "kd", "temperature": 0}]}, "/losses/0/temperature", "greater_than"),
    "negative epochs": ({"training": {"epochs": -3}}, "/training/epochs", "greater_than_equal"),
    "no epochs": ({"training": {"epochs": 0}}, "/training/epochs", "greater_than_equal"),
    "more epochs than the limit": ({"training": {"epochs": 501}}, "/training/epochs", "over_limit"),
    "more teacher epochs than the limit": (
        {"teacher": {"train": {"architecture": {"name": "mlp"}, "epochs": 501}}},
        "/teacher/train/epochs",
        "over_limit",
    ),
    "more fine-tuning than the limit": ({"finetune": {"epochs": 501}}, "/finetune/epochs", "over_limit"),
    "a batch beyond the limit": ({"training": {"batch_size": 513}}, "/training/batch_size", "over_limit"),
    "longer than the limit": ({"resources": {"max_hours": 11}}, "/resources/max_hours", "over_limit"),
    "a network beyond the limit": ({"student": {"name": "mlp", "hidden": [2000]}}, "/student", "too_many_parameters"),
    "a teacher beyond the limit": (
        {"teacher": {"train": {"architecture": {"name": "mlp", "hidden": [2000]}}}},
        "/teacher/train/architecture",
        "too_many_parameters",
    ),
    "more units than any network": (
        {"student": {"name": "mlp", "hidden": [2**20]}},
        "/student/hidden/0",
        "less_than_equal",
    ),
    "an unknown student": ({"student": {"name": "transformer"}}, "/student", "unknown_choice"),
    "an unknown loss": ({"losses": [{"kind": "guesswork"}]}, "/losses/0", "unknown_choice"),
    "a student without a name": ({"student": {"hidden": [8]}}, "/student", "required"),
    "no losses": ({"losses": []}, "/losses", "too_short"),
    "all weights zero": ({"losses": [{"kind": "ce", "weight": 0}]}, "/losses", "contradiction"),
    "two temperatures": (
        {"temperature": 2, "losses": [{"kind": "kd", "temperature": 4}]},
        "/temperature",
        "contradiction",
    ),
    "momentum for adamw": ({"training": {"momentum": 0.9}}, "/training/momentum", "contradiction"),
    "a network too deep for the images": (
        {"student": {"name": "cnn", "channels": [4, 4, 4, 4, 4]}},
        "/student",
        "architecture_misfit",
    ),
    "a task the dataset is not for": ({"task": "tabular-classification"}, "/task", "task_mismatch"),
    "two datasets": ({"dataset": {"builtin": "digits", "id": "ds_" + "0" * 26}}, "/dataset", "contradiction"),
    "an unknown builtin": ({"dataset": {"builtin": "mnist"}}, "/dataset/builtin", "unknown_choice"),
    "a dataset id of no form": ({"dataset": {"id": "../../etc"}}, "/dataset/id", "string_pattern_mismatch"),
    "an unknown dataset": ({"dataset": {"id": "ds_" + "0" * 26}}, "/dataset/id", "unknown_dataset"),
    "an unknown teacher": ({"teacher": {"model": "mdl_" + "0" * 26}}, "/teacher/model", "unknown_model"),
    "no teacher": ({"teacher": {}}, "/teacher", "contradiction"),
    "views that are all the same": ({"teacher_outputs": {"views": 9}}, "/teacher_outputs/views", "without_effect"),
    "too many views": ({"teacher_outputs": {"views": 1001}}, "/teacher_outputs/views", "less_than_equal"),
    "kept views of mixed images": (
        {"training": {"augmentation": {"mixup": 0.2}}, "teacher_outputs": {"views": 2}},
        "/teacher_outputs/views",
        "live_only",
    ),
    "top-k of all classes": ({"teacher_outputs": {"top_k": 10}}, "/teacher_outputs/top_k", "too_many"),
    "a name with a line break": ({"name": "a\r\nSet-Cookie: x"}, "/name", "string_pattern_mismatch"),
    "a name like a path": ({"name": "../../x"}, "/name", "string_pattern_mismatch"),
    "a name of a megabyte": ({"name": "x" * 10_000}, "/name", "string_too_long"),
    "a NUL in a label": ({"labels": {"a": "b\0c"}}, "/labels/a", "string_pattern_mismatch"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_wrong_field_is_named_with_what_would_be_right(
    http: TestClient, digits: str, traces: Traces, case: str
) -> None:
    changes, pointer, code = FIELDS[case]
    before = traces()
    for path in ("/v1/jobs", "/v1/jobs?validate_only=true"):
        answer = http.post(path, json=SPEC | changes)
        assert answer.status_code == 422
        assert answer.headers["content-type"] == "application/problem+json"
        problem = Problem.model_validate_json(answer.content)
        assert (problem.status, problem.code) == (422, "invalid_spec")
        assert [(e.pointer, e.code) for e in problem.errors] == [(pointer, code)]
        assert problem.errors[0].detail.endswith((".", "?"))
    assert traces() == before


def test_every_wrong_field_is_named_at_once(http: TestClient, digits: str) -> None:
    wrong = {"temperature": -1, "training": {"epochs": 0, "optimizer": "adagrad"}, "student": {"name": "x"}, "y": 1}
    problem = http.post("/v1/jobs", json=SPEC | wrong).json()
    pointers = {e["pointer"] for e in problem["errors"]}
    assert pointers == {"/temperature", "/training/epochs", "/training/optimizer", "/student", "/y"}


def test_a_required_field_that_is_missing_is_named(http: TestClient) -> None:
    problem = http.post("/v1/jobs", json={"teacher": SPEC["teacher"], "dataset": SPEC["dataset"]}).json()
    assert [(e["pointer"], e["code"]) for e in problem["errors"]] == [("/student", "required")]


def test_what_was_sent_is_not_repeated(http: TestClient, digits: str) -> None:
    answer = http.post("/v1/jobs", json=SPEC | {"temperature": "hunter2", "hunter3": "hunter4"})
    assert "hunter2" not in answer.text
    assert "hunter4" not in answer.text


# Bodies → status, code, and pointer and code of the entry when there is one.
BODIES: dict[str, tuple[bytes, int, str, tuple[str, str] | None]] = {
    "nothing": (b"", 422, "invalid", ("", "not_json")),
    "no JSON": (b"teacher: {}", 422, "invalid", ("", "not_json")),
    "half of it": (json.dumps(SPEC).encode()[:50], 422, "invalid", ("", "not_json")),
    "more than one value": (b"{} {}", 422, "invalid", ("", "not_json")),
    "a list": (b"[]", 422, "invalid_spec", ("", "not_an_object")),
    "null": (b"null", 422, "invalid_spec", ("", "not_an_object")),
    "UTF-16": (json.dumps(SPEC).encode("utf-16"), 422, "invalid", ("", "not_utf8")),
    "a byte order mark": (b"\xef\xbb\xbf" + json.dumps(SPEC).encode(), 422, "invalid", ("", "not_json")),
    "a broken character": (b'{"name": "\xff"}', 422, "invalid", ("", "not_utf8")),
    "NaN": (
        json.dumps(SPEC | {"temperature": float("nan")}).encode(),
        422,
        "invalid",
        ("/temperature", "not_finite"),
    ),
    "Infinity": (
        json.dumps(SPEC | {"training": {"weight_decay": float("inf")}}).encode(),
        422,
        "invalid",
        ("/training/weight_decay", "not_finite"),
    ),
    "a number beyond all floats": (
        b'{"losses": [{"weight": 1e999}]}',
        422,
        "invalid",
        ("/losses/0/weight", "not_finite"),
    ),
    "a number of 5,000 digits": (b'{"seed": ' + b"9" * 5000 + b"}", 422, "invalid", ("", "number_too_long")),
    "a key that stands twice": (
        b'{"training": {"epochs": 1, "epochs": 2}}',
        422,
        "invalid",
        ("/training/epochs", "duplicate_key"),
    ),
    "33 levels": (b"[" * 33 + b"]" * 33, 422, "invalid", ("", "too_deep")),
    "9,000 levels": (b"[" * 9000, 422, "invalid", ("", "too_deep")),
    "9,000 levels of objects": (b'{"":' * 4000, 422, "invalid", ("", "too_deep")),
    "half a surrogate": (b'{"name": "\\ud800"}', 422, "invalid_spec", ("", "json_invalid")),
    "more than the limit": (json.dumps(SPEC).encode() + b" " * 20_000, 413, "too_large", None),
}


@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_is_no_plain_json_is_refused(http: TestClient, digits: str, traces: Traces, case: str) -> None:
    body, status, code, entry = BODIES[case]
    before = traces()
    answer = http.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    problem = Problem.model_validate_json(answer.content)
    assert (answer.status_code, problem.code) == (status, code), answer.text
    assert entry is None or [(e.pointer, e.code) for e in problem.errors] == [entry]
    assert traces() == before


def test_a_body_without_a_declared_length_is_limited_while_it_comes(http: TestClient, traces: Traces) -> None:
    before = traces()
    answer = http.post(
        "/v1/jobs", content=(b" " * 1000 for _ in range(30)), headers={"Content-Type": "application/json"}
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert traces() == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/problem+json"},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ],
)
def test_another_type_of_body_is_refused(http: TestClient, headers: dict[str, str]) -> None:
    answer = http.post("/v1/jobs", content=json.dumps(SPEC).encode(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media")
    assert answer.json()["hint"]


def test_a_body_without_a_type_is_refused(http: TestClient) -> None:
    assert http.post("/v1/jobs", content=b"{}").status_code == 415


def test_very_many_mistakes_are_not_all_listed(http: TestClient) -> None:
    many = {f"k{i}": 1 for i in range(1500)}
    assert len(http.post("/v1/jobs", json=SPEC | many).json()["errors"]) == 100
    raw = b'{"x": [' + b",".join([b"NaN"] * 3000) + b"]}"
    answer = http.post("/v1/jobs", content=raw, headers={"Content-Type": "application/json"})
    assert len(answer.json()["errors"]) == 100


def test_brackets_and_escapes_within_text_do_not_count_as_depth(http: TestClient, digits: str) -> None:
    labels = {"k": "[" * 100 + '"' + "{" * 100 + "\\"}
    assert http.post("/v1/jobs?validate_only=true", json=SPEC | {"labels": labels}).status_code == 200


@pytest.mark.parametrize(
    "key", ["", "x" * 256, "with space", "tab\t"], ids=["empty", "too long", "with a space", "with a tab"]
)
def test_an_idempotency_key_of_another_form_is_refused(http: TestClient, digits: str, traces: Traces, key: str) -> None:
    before = traces()
    answer = http.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": key})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "header:Idempotency-Key"
    assert traces() == before


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("validate_olny=true", "?validate_olny"),
        ("validate_only=perhaps", "?validate_only"),
    ],
)
def test_an_unknown_or_unclear_query_parameter_starts_no_job(
    http: TestClient, digits: str, traces: Traces, query: str, pointer: str
) -> None:
    before = traces()
    answer = http.post(f"/v1/jobs?{query}", json=SPEC)
    assert answer.status_code == 422
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]
    assert traces() == before
