"""Students that are named by what they should be: resolved at submission, without a worker."""

from typing import Any

from fastapi.testclient import TestClient

from tests.house import SPEC, House


def validated(http: TestClient, **changes: Any) -> dict[str, Any]:
    answer = http.post("/v1/jobs?validate_only=true", json=SPEC | changes)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_budget_is_answered_with_the_student_it_buys(http: TestClient, digits: str) -> None:
    found = validated(http, student={"budget": {"size_mb": 0.02}})
    (chosen,) = found["resolved"]["student"]["candidates"]
    assert found["estimate"]["student_size_bytes"] <= 20_000
    assert chosen["name"] in ("mlp", "cnn")
    refused = http.post("/v1/jobs", json=SPEC | {"student": {"budget": {"parameters": 5}}})
    assert refused.status_code == 422
    assert [(error["pointer"], error["code"]) for error in refused.json()["errors"]] == [
        ("/student/budget", "nothing_fits")
    ]


def test_a_stored_teacher_is_shrunk_by_its_own_record(http: TestClient, digits: str, house: House) -> None:
    lease = house.take_up(http.post("/v1/jobs", json=SPEC).json()["id"])
    house.succeed(lease, {"model.safetensors": b"w"})
    model = http.get(f"/v1/jobs/{lease.job_id}").json()["student_model_id"]
    stored = http.get(f"/v1/models/{model}").json()["config"]["architecture"]
    found = validated(http, teacher={"model": model}, student={"name": "shrink", "width": 0.5})
    small = found["resolved"]["student"]["architecture"]
    assert small["hidden"] == [units // 2 for units in stored["hidden"]]
    job = http.post("/v1/jobs", json=SPEC | {"teacher": {"model": model}, "student": {"name": "shrink"}})
    assert job.status_code == 202
    assert job.json()["spec"]["student"] == {"name": "shrink"}
    assert job.json()["resolved"]["student"]["architecture"]["hidden"] == small["hidden"]


def test_a_network_of_timm_is_judged_by_its_name_before_any_worker_sees_it(http: TestClient, digits: str) -> None:
    found = validated(http, student={"name": "timm/resnet18"})
    assert found["resolved"]["student"]["architecture"] == "resnet18"
    assert found["estimate"]["student_parameters"] == 11_689_512 - 513 * 990 - 2 * 3_136
    for student, code in (
        ({"name": "timm", "architecture": "vit_tiny_patch16_224"}, "architecture_misfit"),
        ({"name": "timm", "architecture": "resnet"}, "contradiction"),
    ):
        refused = http.post("/v1/jobs", json=SPEC | {"student": student})
        assert refused.status_code == 422
        assert [error["code"] for error in refused.json()["errors"]] == [code]
