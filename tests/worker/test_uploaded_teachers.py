"""Teachers from elsewhere, all the way: uploaded by the client, kept by the API, read by a worker, distilled."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from api.__main__ import server_config
from api.main import create_app
from core.db import Database
from core.settings import Settings
from models import keys
from stillhouse.client import Client
from stillhouse.spec import StoredDataset
from stillhouse.spec.errors import InvalidSpec, NotFound
from stillhouse.spec.views import Job, Model
from tests.house import serve
from tests.worker import teachers
from tests.worker.service import Service
from tests.worker.teachers import PAIRS, Digits, Prepare


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture(scope="module")
def rows(digits: tuple[Path, StoredDataset]) -> Digits:
    """The digits as a stranger reads them."""
    return teachers.read_digits(digits[0])


@pytest.fixture(scope="module")
def small(rows: Digits) -> nn.Module:
    """A network that knows the digits."""
    return teachers.trained(teachers.small(), teachers.unit, rows.train, epochs=30)


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    """Address of the API of the service."""
    with serve(server_config(settings, create_app(settings))) as address:
        yield address


@pytest.fixture
def client(url: str, api_key: str) -> Iterator[Client]:
    """The project's client."""
    with Client(url, api_key) as made:
        yield made


def job(model: Model, **changes: Any) -> dict[str, Any]:
    """A student of a few thousand parameters that learns from the uploaded teacher alone."""
    return {
        "teacher": {"model": model.id},
        "dataset": {"builtin": "digits"},
        "student": {"name": "mlp", "hidden": [48]},
        "losses": [{"kind": "kd", "temperature": 3}],
        "training": {"epochs": 25, "batch_size": 32},
        "evaluation": {"baseline": False},
    } | changes


def finished(client: Client, service: Service, made: Job) -> Job:
    """The job once it has succeeded."""
    done = client.jobs.wait(made.id, timeout=300)
    assert done.status == "succeeded", (done.error, service.logs())
    return done


def assert_taught(done: Job, *, teacher: float) -> None:
    """The report's teacher is as good as its maker's own code says, and the student nearly as good as that."""
    assert done.report is not None
    found, student = done.report.of("teacher"), done.report.of("student")
    assert found is not None
    assert student is not None
    assert abs(found.accuracy - teacher) < 0.5 / found.rows, (found.accuracy, teacher)
    assert student.accuracy > teacher - 0.06
    assert student.agreement is not None
    assert student.agreement > 0.9


def assert_timed(done: Job) -> None:
    """Student and teacher, whatever it came as."""
    assert done.report is not None
    timed = {model.role for model in done.report.models if model.latency}
    assert timed == {"teacher", "student"}, done.report.warnings


def test_every_kind_of_file_teaches_as_well_as_it_does_at_home(
    client: Client, service: Service, rows: Digits, small: nn.Module, tmp_path: Path
) -> None:
    service.start_worker()
    resnet = teachers.trained(teachers.of_timm(), teachers.enlarged, rows.train, epochs=6)
    vit = teachers.of_transformers()
    teachers.trained(vit, teachers.unit, rows.train, epochs=25)
    names = [str(i) for i in range(10)]
    upload = client.models.upload
    resized: dict[str, Any] = {"size": "32", "scale": "dataset", "mean": [0.5], "std": [0.5], "gray": "repeat"}
    resized |= {"interpolation": "bilinear", "fit": "stretch", "crop": 1.0}
    made: dict[str, tuple[Model, nn.Module, Prepare]] = {
        "checkpoint": (
            upload(teachers.as_checkpoint(resnet, tmp_path / "r.pth"), architecture="timm/test_resnet", **resized),
            resnet,
            teachers.enlarged,
        ),
        "huggingface": (upload(teachers.as_folder(vit, tmp_path / "vit")), vit, teachers.unit),
        "onnx": (
            upload(teachers.as_onnx_folder(small, tmp_path / "onnx"), classes=names, scale=teachers.WHITE),
            small,
            teachers.unit,
        ),
        "torch-export": (
            upload(teachers.as_program(small, tmp_path / "s.pt2"), scale=teachers.WHITE),
            small,
            teachers.unit,
        ),
    }
    jobs = {kind: client.jobs.create(job(model)) for kind, (model, _, _) in made.items()}
    for kind, (model, net, prepare) in made.items():
        assert (model.format, model.origin, model.job_id, model.role) == (kind, "upload", None, "teacher")
        assert model.outputs == 10
        done = finished(client, service, jobs[kind])
        assert done.teacher_model_id == model.id
        assert_taught(done, teacher=teachers.accuracy(net, prepare, rows.test))
        assert_timed(done)
    assert made["huggingface"][0].network == "ViTForImageClassification"
    assert made["onnx"][0].shape == [1, 8, 8]
    listed = {model.id: model for model in client.models.list() if model.origin == "upload"}
    assert listed == {model.id: model for model, _, _ in made.values()}


def test_ten_classes_of_the_teacher_become_five_of_the_dataset(
    client: Client, service: Service, rows: Digits, small: nn.Module, tmp_path: Path
) -> None:
    service.start_worker()
    dataset = client.datasets.add(teachers.pairs(rows, tmp_path / "pairs.zip"))
    assert set(dataset.facts.classes) == set(PAIRS)
    # Images of this dataset are 15 times as bright as the digits the network was trained on.
    model = client.models.upload(teachers.as_program(small, tmp_path / "s.pt2"), scale=15 * teachers.WHITE)
    spec = job(model, dataset={"id": dataset.id})
    with pytest.raises(InvalidSpec) as caught:
        client.jobs.create(spec)
    assert [(e.pointer, e.code) for e in caught.value.errors] == [("/teacher/label_map", "class_mismatch")]
    spec["teacher"]["label_map"] = {str(digit): PAIRS[digit // 2] for digit in range(10)}
    made = client.jobs.create(spec)
    assert made.resolved.teacher.label_map == spec["teacher"]["label_map"]
    done = finished(client, service, made)
    assert done.report is not None
    teacher, student = done.report.of("teacher"), done.report.of("student")
    assert teacher is not None
    assert student is not None
    assert teacher.accuracy > 0.95
    assert student.accuracy > 0.85
    assert_timed(done)


def test_a_teacher_worse_than_the_student_alone_ends_the_job_and_says_so(
    client: Client, service: Service, rows: Digits, tmp_path: Path
) -> None:
    service.start_worker()
    model = client.models.upload(teachers.as_program(teachers.small().eval(), tmp_path / "s.pt2"), scale=16)
    made = client.jobs.create(job(model, evaluation={"baseline": True}))
    done = client.jobs.wait(made.id, timeout=300)
    assert done.error is not None, service.logs()
    assert done.error.code == "teacher_too_weak"
    guessing = teachers.accuracy(teachers.small().eval(), teachers.unit, rows.validation)
    assert f"{guessing:.2%}" in done.error.detail


def test_an_uploaded_teacher_is_a_strangers_to_nobody(
    client: Client, url: str, database: Database, small: nn.Module, tmp_path: Path
) -> None:
    model = client.models.upload(teachers.as_program(small, tmp_path / "s.pt2"), scale=16)
    with database.write() as session:
        other = keys.issue(session, keys.project_named(session, "other").id, name="test")
    with Client(url, other) as stranger:
        assert list(stranger.models.list()) == []
        with pytest.raises(NotFound):
            stranger.models.get(model.id)
        with pytest.raises(InvalidSpec) as caught:
            stranger.jobs.create(job(model))
    assert [(e.pointer, e.code) for e in caught.value.errors] == [("/teacher/model", "unknown_model")]


def test_a_black_box_cannot_be_shrunk_nor_looked_into(client: Client, small: nn.Module, tmp_path: Path) -> None:
    model = client.models.upload(teachers.as_onnx(small, tmp_path / "s.onnx"), scale=16)
    assert any("probabilities" in note for note in model.notes)
    for change, pointer, code in (
        ({"student": {"name": "shrink", "width": 0.5}}, "/student", "cannot_shrink"),
        ({"student": {"name": "cnn"}, "losses": [{"kind": "kd"}, {"kind": "fitnet"}]}, "/teacher/model", "black_box"),
    ):
        with pytest.raises(InvalidSpec) as caught:
            client.jobs.create(job(model, **change))
        assert (pointer, code) in [(e.pointer, e.code) for e in caught.value.errors]


def test_the_same_folder_is_sent_as_the_same_bytes(client: Client, tmp_path: Path) -> None:
    folder = teachers.as_folder(teachers.of_transformers(), tmp_path / "vit")
    first = client.models.upload(folder)
    (folder / "config.json").touch()
    second = client.models.upload(folder, name="again")
    assert (first.name, second.name) == ("vit", "again")
    assert first.sha256 == second.sha256
    assert first.config == second.config
