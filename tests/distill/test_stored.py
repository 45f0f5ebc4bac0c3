"""Teachers that come in files: loaded, fitted to the rows, mapped to the dataset's classes, and told apart."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file
from torch import nn

from distill import FolderShelf, RunIO, run
from distill.data import Dataset, read_dataset
from distill.reporter import Reporter
from distill.stored import stored
from distill.teacher import Teacher
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import LogLine, PhaseStarted, TrainerEvent
from stillhouse.spec.teachers import ForeignConfig, OnnxNet, Preprocessing, TimmNet
from tests.distill.conftest import digits, resolved, store
from tests.distill.test_run import Job

MODEL = "mdl_" + "0" * 26
TEACHER: dict[str, Any] = {"train": {"architecture": {"name": "mlp", "hidden": [32]}, "epochs": 1}}
TIMM = Preprocessing(scale="dataset", mean=(0.5,), std=(0.25,), size=(32, 32))
DIGITS = tuple("0123456789")


def timm_folder(folder: Path, **changes: Any) -> tuple[Path, nn.Module]:
    """A random network of timm as the service keeps it, and the network itself."""
    folder.mkdir()
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=10, in_chans=1).eval()
    save_file(net.state_dict(), folder / "model.safetensors")
    fields = {
        "network": TimmNet(architecture="test_resnet"),
        "task": "image-classification",
        "shape": (1, None, None),
        "outputs": 10,
        "classes": DIGITS,
        "preprocessing": TIMM,
        "parameters": sum(p.numel() for p in net.parameters()),
    }
    (folder / "config.json").write_text(ForeignConfig.model_validate(fields | changes).model_dump_json())
    return folder, net


def onnx_folder(folder: Path) -> Path:
    """A linear network for digits as flat rows of pixels in a graph, as the service keeps it."""
    folder.mkdir()
    weights = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)).numpy()
    net = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(net, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "model.onnx")
    config = ForeignConfig(
        network=OnnxNet(input="x", output="y", dtype="float32"),
        task="image-classification",
        shape=(1, 8, 8),
        outputs=10,
        classes=DIGITS,
        parameters=640,
    )
    (folder / "config.json").write_text(config.model_dump_json())
    return folder


def opened(
    folder: Path | None, data: Dataset, label_map: Mapping[str, str] | None = None, *, batch: int = 32
) -> tuple[Teacher, list[str]]:
    """The teacher, and what was said of it."""
    said: list[TrainerEvent] = []
    teacher = stored(folder, data, label_map, batch=batch, reporter=Reporter(said.append))
    return teacher, [event.message for event in said if isinstance(event, LogLine)]


@pytest.fixture
def data(digits_file: Path) -> Dataset:
    return read_dataset(digits_file)


def own_folder(job: Job, folder: Path, classes: tuple[str, ...] = DIGITS) -> Path:
    """The teacher a job trained, its classes called `classes`."""
    folder.mkdir()
    config = json.loads((job.output / "teacher.json").read_text())
    config["facts"]["classes"] = list(classes)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes((job.output / "teacher.safetensors").read_bytes())
    return folder


@pytest.fixture(scope="module")
def taught(digits_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job that trained its teacher."""
    return Job(digits_file, tmp_path_factory.mktemp("taught") / "out")


def test_a_network_of_timm_sees_the_rows_as_its_preprocessing_says(data: Dataset, tmp_path: Path) -> None:
    folder, net = timm_folder(tmp_path / "t")
    teacher, said = opened(folder, data)
    x = data.inputs(data.rows["test"][:40])
    # By hand: the brightest digit is 16; then mean and deviation.
    large = nn.functional.interpolate(x, (32, 32), mode="bilinear", align_corners=False, antialias=True)
    assert torch.allclose(teacher.net(x), net((large / 16 - 0.5) / 0.25), atol=1e-4)
    assert (teacher.described, teacher.architecture, teacher.timing, said) == ("timm/test_resnet", None, "exported", [])


def test_many_rows_go_through_in_portions_and_a_batch_of_training_whole(data: Dataset, tmp_path: Path) -> None:
    folder, _ = timm_folder(tmp_path / "t", preprocessing=TIMM.model_copy(update={"size": (224, 224)}))
    teacher, _ = opened(folder, data, batch=4)
    seen: list[int] = []
    teacher.net.get_submodule("network").register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    rows = data.inputs(data.rows["train"][:100])
    assert teacher.net(rows).shape == (100, 10)
    assert seen == [83, 17]  # 83 · 224 · 224 numbers are below 2²²
    teacher, _ = opened(folder, data, batch=100)
    teacher.net.get_submodule("network").register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    teacher.net(rows)
    assert seen[2:] == [100]


def test_the_fingerprint_is_that_of_everything_the_outputs_depend_on(data: Dataset, tmp_path: Path) -> None:
    folder, _ = timm_folder(tmp_path / "t")
    other, _ = timm_folder(tmp_path / "other", preprocessing=TIMM.model_copy(update={"mean": (0.4,)}))
    swapped = {"0": "1", "1": "0"}
    prints = [
        opened(where, data, label_map)[0].fingerprint
        for where, label_map in ((folder, None), (other, None), (folder, swapped))
    ]
    assert len(set(prints)) == 3
    assert opened(folder, data)[0].fingerprint == prints[0]


def test_a_model_of_ours_with_its_classes_in_another_order_says_the_same(
    data: Dataset, taught: Job, tmp_path: Path
) -> None:
    plain, said = opened(own_folder(taught, tmp_path / "plain"), data)
    turned = ("1", "0", *DIGITS[2:])
    other, _ = opened(own_folder(taught, tmp_path / "turned", turned), data)
    x = data.inputs(data.rows["test"][:50])
    assert said == []
    assert torch.allclose(plain.net(x)[:, [1, 0, *range(2, 10)]], other.net(x), atol=1e-5)
    assert plain.architecture is not None
    assert other.architecture is None  # its last layer is no start for a student
    assert plain.fingerprint != other.fingerprint


def test_ten_classes_teach_five(taught: Job, tmp_path: Path) -> None:
    x, y, split = digits()
    pairs = ("0 or 1", "2 or 3", "4 or 5", "6 or 7", "8 or 9")
    dataset = store(tmp_path / "pairs.safetensors", x, y // 2, split, pairs)
    label_map = {digit: pairs[int(digit) // 2] for digit in DIGITS}
    folder = own_folder(taught, tmp_path / "teacher")
    job = Job(dataset, tmp_path / "out", io={"teacher": folder}, teacher={"model": MODEL, "label_map": label_map})
    teacher, student = job.report.models
    alone = taught.report.models[0]
    assert teacher.accuracy >= alone.accuracy  # whoever knows the digit knows the pair
    assert student.accuracy > 0.8
    left_out = {digit: pairs[int(digit) // 2] for digit in DIGITS if int(digit) % 2}
    _, said = opened(folder, read_dataset(dataset), left_out)
    assert said == ["5 of the teacher's 10 classes lead nowhere and are left out."]


def test_layers_of_a_network_of_timm_can_be_learnt_from(digits_file: Path, tmp_path: Path) -> None:
    folder, _ = timm_folder(tmp_path / "t")
    job = Job(
        digits_file,
        tmp_path / "out",
        io={"teacher": folder},
        teacher={"model": MODEL},
        student={"name": "cnn", "channels": [8, 16]},
        losses=[{"kind": "ce"}, {"kind": "similarity"}],
        training={"epochs": 1},
    )
    compared = job.report.layer_pairs["similarity"]
    assert compared
    assert all(pair.teacher.startswith("network.") for pair in compared)


def test_a_black_box_teaches_and_is_timed_as_it_runs(digits_file: Path, tmp_path: Path) -> None:
    folder = onnx_folder(tmp_path / "box")
    job = Job(
        digits_file,
        tmp_path / "out",
        io={"teacher": folder},
        teacher={"model": MODEL},
        losses=[{"kind": "kd"}],
        export={"onnx": True},
    )
    teacher, student = job.report.models
    assert (teacher.architecture, teacher.parameters) == ("ONNX graph", 640)
    assert [(found.batch, found.threads) for found in teacher.latency] == [(1, 1), (64, 1)]
    assert teacher.size_bytes == (folder / "model.onnx").stat().st_size
    assert student.latency != []
    assert not any("latency" in line for line in job.report.warnings)
    assert job.finished.teachers == []


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"shape": (1, 16, 16), "preprocessing": Preprocessing()}, "images of 16×16, the dataset has 8×8"),
        ({"classes": (*DIGITS[:9], "ten")}, "No class of the teacher is called '9'"),
        ({"network": TimmNet(architecture="test_vit")}, "could not be loaded"),
        ({"task": "tabular-classification"}, "is for tabular-classification"),
    ],
)
def test_a_teacher_that_does_not_fit_ends_the_job_before_anything_is_trained(
    data: Dataset, tmp_path: Path, change: dict[str, Any], detail: str
) -> None:
    folder, _ = timm_folder(tmp_path / "t", **change)
    with pytest.raises(JobFailure) as caught:
        assert opened(folder, data)[0].net
    assert caught.value.code == "teacher_unusable"
    assert detail in caught.value.detail
    assert str(tmp_path) not in caught.value.detail


def test_files_that_are_damaged_or_missing_end_the_job(data: Dataset, tmp_path: Path) -> None:
    folder, _ = timm_folder(tmp_path / "t")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-10])
    for where in (folder, tmp_path / "nothing", None):
        with pytest.raises(JobFailure, match="teacher") as caught:
            assert opened(where, data)[0].net
        assert caught.value.code == "teacher_unusable"


def test_a_job_that_finds_all_outputs_kept_does_not_read_the_teacher(
    taught: Job, digits_file: Path, tmp_path: Path
) -> None:
    folder = own_folder(taught, tmp_path / "t")
    weights = folder / "model.safetensors"
    (tmp_path / "cache").mkdir()
    io = {
        "teacher": folder,
        "teacher_sha256": [hashlib.sha256(weights.read_bytes()).hexdigest()],
        "shelf": FolderShelf(tmp_path / "cache"),
        "latencies": tmp_path / "latencies",
    }

    def job(name: str, **more: Any) -> Job:
        return Job(digits_file, tmp_path / name, io=io, teacher={"model": "mdl_" + "0" * 26}, **more)

    first = job("first")
    weights.write_bytes(bytes(weights.stat().st_size))  # nothing a network could be made of
    second = job("second")
    assert [file.sha256 for file in second.finished.files if file.name == "model.safetensors"] == [
        file.sha256 for file in first.finished.files if file.name == "model.safetensors"
    ]
    for a, b in zip(first.report.models, second.report.models, strict=True):
        assert (a.accuracy, a.parameters, a.size_bytes) == (b.accuracy, b.parameters, b.size_bytes)
    with pytest.raises(JobFailure, match="could not be loaded"):
        job("third", losses=[{"kind": "fitnet"}, {"kind": "kd"}])  # looks inside the teacher


def test_members_that_cannot_be_loaded_are_found_out_before_others_are_trained(
    taught: Job, digits_file: Path, tmp_path: Path
) -> None:
    folder = own_folder(taught, tmp_path / "1")
    (folder / "model.safetensors").write_bytes(b"cut short")
    members = [TEACHER, {"model": "mdl_" + "0" * 26}]
    (tmp_path / "out").mkdir()
    events: list[TrainerEvent] = []
    spec = resolved(digits_file, teacher={"ensemble": {"members": members}})
    with pytest.raises(JobFailure, match="could not be loaded"):
        run(spec, RunIO(digits_file, tmp_path, tmp_path / "out", threads=1), events.append)
    assert [e.phase for e in events if isinstance(e, PhaseStarted)] == ["preparing"]
