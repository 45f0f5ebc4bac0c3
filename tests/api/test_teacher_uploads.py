"""Teachers that are uploaded and kept, and those that must leave nothing behind."""

import io
import json
import pickle
import struct
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from fastapi.testclient import TestClient
from safetensors.numpy import save
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from core.db import Database
from core.settings import Settings
from core.storage import make_storage, sha256_of
from models.model import ModelRow
from stillhouse.spec.errors import Problem
from stillhouse.spec.limits import Limits
from stillhouse.spec.views import Model
from tests.api.conftest import Traces
from tests.house import SPEC
from tests.linear import elsewhere, linear

LIMIT = 2_000_000


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"limits": Limits(max_upload_bytes=LIMIT)})


class Evil:
    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (Path("/tmp/stillhouse-teacher-was-unpickled"),)


def legacy_checkpoint() -> bytes:
    """What torch.load reads without being asked twice: a pickle that makes an object."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": Evil()}, protocol=2))
        archive.writestr("archive/version", "3")
    return out.getvalue()


def packed(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


WEIGHTS = save({"fc.weight": np.zeros((3, 4), np.float32)})
OWN_CODE = json.dumps({"auto_map": {"AutoModel": "evil.Net"}}).encode()
PASSWD = "../../../../etc/passwd"
LYING = struct.pack("<Q", 3 * 1024**3) + WEIGHTS[8:]
RESNET = "&architecture=timm/test_resnet"


def outside(location: str, *, offset: int = 0, length: int = 48) -> bytes:
    """A graph whose weights are said to lie in another file."""
    return linear(change=partial(elsewhere, location=location, offset=str(offset), length=str(length)))


def with_data(graph: bytes, data: bytes = bytes(48)) -> bytes:
    """A ZIP of a graph and its data file."""
    return packed({"model.onnx": graph, "model.onnx.data": data})


def with_link(graph: bytes) -> bytes:
    """A ZIP of a graph whose data file is a link to one of the machine that reads it."""
    link = zipfile.ZipInfo("model.onnx.data")
    link.external_attr = 0o120777 << 16
    out = io.BytesIO(packed({"model.onnx": graph}))
    with zipfile.ZipFile(out, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    return out.getvalue()


DATA_FILE = "model.onnx.data"

# Bytes, more of the query → status, and the pointer and code of an entry in `errors`.
FILES: dict[str, tuple[bytes, str, int, str, str]] = {
    "text": (b"how do you do\n" * 30, "", 415, "/file", "unsupported_format"),
    "a checkpoint that makes objects": (legacy_checkpoint(), RESNET, 422, "/file", "unsafe_pickle"),
    "a header of 3 GB": (LYING, RESNET, 422, "/file", "corrupt_tensors"),
    "weights elsewhere": (outside(PASSWD), "", 422, "/file/tensors/w", "external_data"),
    "a folder with weights elsewhere": (with_data(outside(PASSWD)), "", 422, "/file/tensors/w", "external_data"),
    "a folder with weights at an absolute path": (
        with_data(outside("/etc/passwd")),
        "",
        422,
        "/file/tensors/w",
        "external_data",
    ),
    "a folder with a link for weights": (with_link(outside(DATA_FILE)), "", 422, "/file/members", "special_member"),
    "a folder without its weights": (with_data(outside("w")), "", 422, "/file/tensors/w", "missing_member"),
    "weights past the end of their file": (
        with_data(outside(DATA_FILE, offset=2**50)),
        "",
        422,
        "/file/tensors/w",
        "corrupt_tensors",
    ),
    "weights of an exbibyte": (
        with_data(outside(DATA_FILE, length=2**59)),
        "",
        422,
        "/file/tensors/w",
        "corrupt_tensors",
    ),
    "weights cut short": (with_data(outside(DATA_FILE), bytes(47)), "", 422, "/file/tensors/w", "corrupt_tensors"),
    "NaN weights beside the graph": (
        with_data(outside(DATA_FILE), b"\xff" * 48),
        "",
        422,
        "/file",
        "weights_not_finite",
    ),
    "two graphs": (packed({"a.onnx": linear(), "b.onnx": linear()}), "", 422, "/file", "several_models"),
    "NaN weights": (linear(weights=np.full((4, 3), np.nan, np.float32)), "", 422, "/file", "weights_not_finite"),
    "an option that does nothing": (linear(), "&match=order", 422, "?match", "option_does_not_apply"),
    "two names for three classes": (linear(), "&classes=a&classes=b", 422, "?classes", "wrong_classes"),
    "a path out of the folder": (packed({"../config.json": b"{}"}), "", 422, "/file", "unsafe_name"),
    "a bomb": (packed({"config.json": bytes(40_000_000)}), "", 413, "/file", "compression_ratio"),
    "code of its own": (
        packed(
            {"config.json": json.dumps({"auto_map": {"AutoModel": "evil.Net"}}).encode(), "model.safetensors": WEIGHTS}
        ),
        "",
        422,
        "/file",
        "custom_code",
    ),
}


def test_a_teacher_is_kept_described_and_listed(http: TestClient, database: Database, settings: Settings) -> None:
    content = linear()
    query = "name=my%20graph&classes=a&classes=b&classes=c&mean=1,2,3,4&std=2"
    answer = http.post(f"/v1/models?{query}", content=content)
    assert answer.status_code == 201, answer.text
    made = Model.model_validate_json(answer.content)
    assert answer.headers["location"] == f"/v1/models/{made.id}"
    assert (made.name, made.origin, made.job_id, made.format, made.role) == (
        "my graph",
        "upload",
        None,
        "onnx",
        "teacher",
    )
    assert (made.shape, made.outputs, made.classes, made.parameters) == ([4], 3, ["a", "b", "c"], 12)
    assert made.task == "tabular-classification"
    assert answer.json()["config"]["preprocessing"]["mean"] == [1, 2, 3, 4]
    assert http.get(f"/v1/models/{made.id}").json() == answer.json()
    assert http.get("/v1/models").json()["data"] == [answer.json()]
    with database.read() as session:
        row = session.scalars(select(ModelRow)).one()
    kept = make_storage(settings).fetch(row.weights_key, settings.work_dir)
    assert row.weights_key.startswith(f"projects/{row.project_id}/models/{made.id}")
    assert (sha256_of(kept), kept.stat().st_size) == (made.sha256, made.bytes)
    assert list((settings.work_dir / "uploads").iterdir()) == []


def test_an_uploaded_teacher_is_fitted_to_the_data_of_a_job(http: TestClient) -> None:
    made = http.post("/v1/models?name=t&classes=a&classes=b&classes=c", content=linear()).json()["id"]
    table = "\n".join(["p,q,r,s,label", *(f"{i},{i % 3},{i % 5},{i % 7},{'ABD'[i % 3]}" for i in range(90))])
    data = http.post("/v1/datasets?name=t", content=table.encode()).json()["id"]
    spec = SPEC | {"dataset": {"id": data}, "teacher": {"model": made}}
    wrong = http.post("/v1/jobs", json=spec)
    assert [(e["pointer"], e["code"]) for e in wrong.json()["errors"]] == [("/teacher/label_map", "unmapped_class")]
    spec["teacher"] = {"model": made, "label_map": {"c": "D"}}
    checked = http.post("/v1/jobs?validate_only=true", json=spec)
    assert checked.status_code == 200, checked.text
    assert checked.json()["resolved"]["teacher"]["label_map"] == {"a": "A", "b": "B", "c": "D"}
    assert checked.json()["estimate"]["teacher_parameters"] == 12
    assert any("'a' is taken for 'A'" in warning for warning in checked.json()["warnings"])
    digits = http.post("/v1/jobs", json=SPEC | {"teacher": {"model": made}})
    assert ("/teacher/model", "task_mismatch") in [(e["pointer"], e["code"]) for e in digits.json()["errors"]]


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_teach_is_refused_and_leaves_nothing(http: TestClient, traces: Traces, case: str) -> None:
    data, query, status, pointer, code = FILES[case]
    before = traces()
    answer = http.post(f"/v1/models?name=t{query}", content=data)
    problem = Problem.model_validate_json(answer.content)
    assert answer.status_code == status, answer.text
    assert any(e.code == code and e.pointer.startswith(pointer) for e in problem.errors), answer.text
    assert not any(part in answer.text for part in ("Traceback", "/tmp/", "site-packages"))
    assert traces() == before
    assert not Path("/tmp/stillhouse-teacher-was-unpickled").exists()


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("", "?name"),
        ("name=../../x", "?name"),
        ("name=t&architecture=os.system", "?architecture"),
        ("name=t&architecture=timm/../../x", "?architecture"),
        ("name=t&mean=nan", "?mean"),
        ("name=t&std=0.5,0", "?std"),
        ("name=t&size=0", "?size"),
        ("name=t&size=1,2,3", "?size"),
        ("name=t&shape=3,3", "?shape"),
        ("name=t&scale=bright", "?scale"),
        ("name=t&classes=a&classes=a", "?classes"),
        ("name=t&format=pickle", "?format"),
        ("name=t&trust_remote_code=true", "?trust_remote_code"),
    ],
)
def test_wrong_options_are_named_before_the_file_is_read(
    http: TestClient, traces: Traces, query: str, pointer: str
) -> None:
    before = traces()
    answer = http.post(f"/v1/models?{query}", content=b"never looked at")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert [e["pointer"] for e in answer.json()["errors"]] == [pointer]
    assert traces() == before


def test_a_form_is_refused_with_the_command_that_works(http: TestClient, traces: Traces) -> None:
    before = traces()
    answer = http.post("/v1/models?name=t", files={"file": ("t.onnx", linear())})
    assert answer.status_code == 415
    assert "/v1/models?name=NAME" in answer.json()["hint"]
    assert traces() == before


def test_more_bytes_than_the_limit_are_refused(http: TestClient, traces: Traces) -> None:
    before = traces()
    answer = http.post("/v1/models?name=t", content=bytes(LIMIT + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert "network" in answer.json()["hint"]
    assert traces() == before


def test_a_database_that_fails_at_the_last_step_leaves_no_file(http: TestClient, traces: Traces) -> None:
    engine = http.app.state.parts.database.engine  # type: ignore[attr-defined]

    def fail(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO model"):
            raise OperationalError(statement, None, Exception("disk gone"))

    before = traces()
    event.listen(engine, "before_cursor_execute", fail)
    answer = http.post("/v1/models?name=t", content=linear())
    event.remove(engine, "before_cursor_execute", fail)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert traces() == before
