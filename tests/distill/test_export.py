"""The ONNX twin and the card: what is caught, what may fail, and what a name cannot break."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import numpy_helper
from torch import Tensor, nn

from distill.data import Dataset, measure, read_dataset
from distill.evaluate import score
from distill.export.card import card
from distill.export.files import OutputFolder
from distill.export.latencies import Latencies
from distill.export.onnx import check, check_standard, to_onnx, to_onnx_beside
from distill.export.runtime import Array, Session, latencies, latency
from distill.model import Model, trained_model
from distill.publish import publish
from distill.reporter import Reporter
from distill.students import build
from distill.teacher import of_model
from distill.teachers import mapped
from distill.teachers.teacher import Teacher as Foreign
from stillhouse.spec import DataFacts
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import Finished
from stillhouse.spec.facts import Feature
from stillhouse.spec.report import Measured, Report
from stillhouse.spec.students import Mlp
from stillhouse.spec.teachers import ForeignConfig, LabelMap, Preprocessing, TimmNet
from tests.distill.conftest import resolved


@pytest.fixture(scope="module")
def data(digits_file: Path) -> Dataset:
    return read_dataset(digits_file)


@pytest.fixture(scope="module")
def student(data: Dataset) -> Model:
    torch.manual_seed(0)
    found = measure(data)
    architecture = Mlp(name="mlp", hidden=(16,))
    net = build(architecture, data.facts, found.mean, found.std).eval()
    return trained_model("student", net, architecture, data.facts, found)


@pytest.fixture(scope="module")
def content(student: Model) -> bytes:
    return to_onnx(student.net, student.config)


def _with_bias(content: bytes, change: float) -> bytes:
    """The same file with the last bias changed in one place."""
    model = onnx.load_from_string(content)
    bias = next(tensor for tensor in model.graph.initializer if tensor.name == "network.3.bias")
    values = numpy_helper.to_array(bias).copy()
    values[3] += np.float32(change)
    bias.CopyFrom(numpy_helper.from_array(values, bias.name))
    return bytes(model.SerializeToString())


def test_a_faithful_file_passes_the_check(data: Dataset, student: Model, content: bytes) -> None:
    found = check(Session(content), student.net, data)
    assert found.rows == 270
    assert found.same_class == 1.0
    assert 0 <= found.max_abs_difference <= found.tolerance


@pytest.mark.parametrize("change", [0.01, -5.0, float("nan")])
def test_a_file_with_one_wrong_bias_is_an_export_mismatch(
    data: Dataset, student: Model, content: bytes, change: float
) -> None:
    with pytest.raises(JobFailure) as failure:
        check(Session(_with_bias(content, change)), student.net, data)
    assert failure.value.code == "export_mismatch"


def test_a_file_that_contradicts_itself_breaks_the_standard(content: bytes) -> None:
    check_standard(content)
    model = onnx.load_from_string(content)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    with pytest.raises(JobFailure, match="breaks the ONNX standard"):
        check_standard(model.SerializeToString())


def test_exporting_twice_gives_the_same_bytes(student: Model, content: bytes) -> None:
    assert to_onnx(student.net, student.config) == content


def test_exporting_leaves_the_network_as_it_was(data: Dataset, student: Model) -> None:
    before = {name: value.clone() for name, value in student.net.state_dict().items()}
    to_onnx(student.net, student.config)
    assert all(torch.equal(before[name], value) for name, value in student.net.state_dict().items())
    assert not student.net.training


def test_a_latency_counts_its_runs_and_names_its_threads(content: bytes) -> None:
    found = latency(Session(content), np.zeros((3, 1, 8, 8), np.float32), batch=64)
    assert (found.batch, found.threads) == (64, 1)
    assert found.runs >= 3
    assert 0 < found.median_ms <= found.p90_ms


def test_a_graph_that_onnx_runtime_does_not_take_or_run_is_a_failure_with_a_name(content: bytes) -> None:
    for wrong in (b"no graph", content[: len(content) // 2]):
        with pytest.raises(JobFailure, match="ONNX Runtime") as caught:
            Session(wrong)
        assert caught.value.code == "export_failed"
    with pytest.raises(JobFailure, match="ONNX Runtime"):
        Session(content)(np.zeros((1, 3, 5, 5), np.float32))


def test_a_teacher_with_a_label_map_can_be_exported_for_any_number_of_rows(student: Model) -> None:
    to_half = LabelMap(by="stated", to=(*range(5), *range(4), -1))
    net = mapped(student.net, to_half, 5)
    facts = student.config.facts.model_copy(update={"classes": tuple("abcde")})
    session = Session(to_onnx(net, student.config.model_copy(update={"facts": facts})))
    for rows in (1, 3, 64):
        x = torch.rand(rows, *facts.shape) * 16
        with torch.no_grad():
            assert np.allclose(session(x.numpy()), net(x).numpy(), atol=1e-4)


class _Slow(Session):
    """2 ms a row: 64 would take 128."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, x: Array) -> Array:
        self.asked.append(len(x))
        time.sleep(0.002 * len(x))
        return x


def test_64_rows_of_a_slow_network_are_not_timed_and_not_run(content: bytes) -> None:
    slow, rows = _Slow(), np.zeros((3, 1, 8, 8), np.float32)
    assert [entry.batch for entry in latencies(slow, rows)] == [1]
    assert set(slow.asked) == {1}
    assert [entry.batch for entry in latencies(Session(content), rows)] == [1, 64]


class _Untraceable(nn.Module):
    """Its path depends on the data, which no exported graph can follow."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits if x.sum().item() > 0 else -logits


def _publish(data: Dataset, folder: Path, digits_file: Path, *models: Model, **spec: Any) -> Finished:
    folder.mkdir()
    return publish(
        spec=resolved(digits_file, **{"export": {"onnx": True}, **spec}),
        data=data,
        teacher=of_model(models[0]),
        models=list(models[1:]),
        scores=[score(model.net, data, "test") for model in models],
        chosen=None,
        epochs={},
        stages=[],
        notes=[],
        output=folder,
        known=Latencies(None),
        reporter=Reporter(lambda event: None),
    )


def test_a_teacher_that_cannot_be_exported_costs_its_latency_and_a_warning(
    data: Dataset, student: Model, digits_file: Path, tmp_path: Path
) -> None:
    teacher = Model("teacher", _Untraceable(student.net), student.config, student.weights)
    report = _publish(data, tmp_path / "out", digits_file, teacher, student).report
    assert report.models[0].latency == []
    assert len(report.models[1].latency) == 2
    assert any("The teacher could not be exported" in line for line in report.warnings)


class _OfItsRows(nn.Module):
    """Cuts by the number of rows, as an exported graph cannot."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.inner(part) for part in torch.split(x, max(1, len(x)))])


def test_a_teacher_whose_graph_would_be_of_a_fixed_number_of_rows_costs_its_latency_and_a_warning(
    data: Dataset, student: Model, digits_file: Path, tmp_path: Path
) -> None:
    teacher = Model("teacher", _OfItsRows(student.net), student.config, student.weights)
    report = _publish(data, tmp_path / "out", digits_file, teacher, student).report
    assert report.models[0].latency == []
    assert any("The teacher could not be exported" in line for line in report.warnings)


@pytest.mark.parametrize("gives", ["logits", "probabilities"])
def test_a_teacher_from_elsewhere_is_exported_for_any_number_of_rows(
    data: Dataset, student: Model, gives: Any, tmp_path: Path
) -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16 * 16, 10))
    net = body if gives == "logits" else nn.Sequential(body, nn.Softmax(1))
    config = ForeignConfig(
        network=TimmNet(architecture="test_resnet"),
        task="image-classification",
        shape=(3, None, None),
        outputs=10,
        gives=gives,
        parameters=1,
        preprocessing=Preprocessing(scale="dataset", size=(16, 16), gray="repeat"),
    )
    teacher = Foreign(net, config, white=16.0)
    teacher.rows_at_once = 8
    session = Session(to_onnx_beside(teacher, student.config, tmp_path))
    rows = data.inputs(data.rows["test"][:20])
    for part in (rows[:1], rows[:5], rows):
        torch.testing.assert_close(torch.from_numpy(session(part.numpy())), teacher(part), atol=1e-4, rtol=1e-4)


def test_a_student_that_cannot_be_exported_fails_the_job(
    data: Dataset, student: Model, digits_file: Path, tmp_path: Path
) -> None:
    broken = Model("student", _Untraceable(student.net), student.config, student.weights)
    with pytest.raises(JobFailure) as failure:
        _publish(data, tmp_path / "out", digits_file, replace(student, role="teacher"), broken)
    assert failure.value.code == "export_failed"


def test_a_latency_target_is_measured_even_when_no_onnx_file_is_wanted(
    data: Dataset, student: Model, digits_file: Path, tmp_path: Path
) -> None:
    teacher, wanted = replace(student, role="teacher"), {"export": {"onnx": False}, "targets": {"max_latency_ms": 1e4}}
    finished = _publish(data, tmp_path / "out", digits_file, teacher, student, **wanted)
    assert finished.verdict == "passed"
    assert not (tmp_path / "out" / "model.onnx").exists()
    assert "onnx" not in {file.kind for file in finished.files}


def test_checksums_cover_what_was_written_before_and_no_teacher(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path)
    folder.write("model.safetensors", "weights", b"w")
    folder.write("teacher.safetensors", "teacher_weights", b"t")
    folder.write_checksums()
    lines = (tmp_path / "SHA256SUMS").read_text().splitlines()
    assert [line.split("  ")[1] for line in lines] == ["model.safetensors"]
    assert [file.name for file in folder.files] == ["model.safetensors", "teacher.safetensors", "SHA256SUMS"]


def _report(**change: Any) -> Report:
    row = Measured(
        role="student",
        architecture="mlp",
        accuracy=0.5,
        accuracy_interval=(0.4, 0.6),
        errors=5,
        rows=10,
        loss=1.0,
        agreement=0.5,
        parameters=3,
        size_bytes=100,
        per_class_accuracy={},
    )
    teacher = row.model_copy(update={"role": "teacher", "agreement": None})
    return Report(models=[teacher, row], device="cpu", **{"gap_recovered": None, **change})


def test_no_name_a_customer_chose_breaks_out_of_its_place_on_the_card(student: Model, digits_file: Path) -> None:
    nasty = ('"`*_|', "---\ntags: [x]", "```\n# heading", "</script><b>", "ü")
    facts = student.config.facts.model_copy(update={"classes": nasty})
    text = card(resolved(digits_file), student.config.model_copy(update={"facts": facts}), _report(), onnx=True)
    header, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert set(yaml.safe_load(header)) == {"library_name", "pipeline_tag", "tags", "metrics", "model-index"}
    line = next(line for line in body.splitlines() if line.startswith("    ["))
    assert json.loads(line) == list(nasty)
    assert "# heading" not in body.splitlines()


def test_the_card_of_a_table_lists_every_input_in_order(student: Model, digits_file: Path) -> None:
    features = (Feature(name="age"), Feature(name="colour", kind="categorical", categories=("red", "blue")))
    facts = DataFacts(
        task="tabular-classification",
        shape=(3,),
        dtype="float32",
        classes=("no", "yes"),
        rows={"train": 1, "validation": 0, "test": 1},
        features=features,
    )
    text = card(resolved(digits_file), student.config.model_copy(update={"facts": facts}), _report(), onnx=False)
    assert '    ["age", "colour = red", "colour = blue"]' in text
    assert "ONNX Runtime" not in text


def test_the_card_never_shows_as_all_what_is_not(student: Model, digits_file: Path) -> None:
    report = _report()
    nearly = report.models[1].model_copy(update={"accuracy": 1 - 1 / 60_000, "errors": 1, "rows": 60_000})
    text = card(
        resolved(digits_file),
        student.config,
        report.model_copy(update={"models": [report.models[0], nearly]}),
        onnx=False,
    )
    assert "| 99.99% (" in text
    assert "100.00%" not in text


def test_the_card_says_when_distillation_did_not_help(student: Model, digits_file: Path) -> None:
    spec = resolved(digits_file)
    assert "75% of the teacher's lead" in card(spec, student.config, _report(gap_recovered=0.75), onnx=False)
    assert "more than the teacher's whole lead" in card(spec, student.config, _report(gap_recovered=3.0), onnx=False)
    assert "did not help" in card(spec, student.config, _report(gap_recovered=-1.0), onnx=False)
    assert "lead" not in card(spec, student.config, _report(), onnx=False)
    assert "- Beware." in card(spec, student.config, _report(warnings=["Beware."]), onnx=False)
