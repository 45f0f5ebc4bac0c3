"""Whole jobs on real digits: the events, the files, the report, and the ways a job can end badly."""

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file

import distill
from distill import FolderShelf, RunIO, run
from distill.data import read_dataset
from distill.evaluate import score
from distill.export.runtime import Session
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import TRAINER_EVENT, Finished, LogLine, Metrics, ModelConfig, PhaseStarted, Progress
from stillhouse.spec.report import Report
from tests.distill.conftest import digits, resolved, store


class Job:
    """One finished run and all it said."""

    def __init__(self, dataset: Path, output: Path, *, io: dict[str, Any] | None = None, **spec: Any) -> None:
        self.output, self.events = output, []
        output.mkdir()
        self.spec = resolved(dataset, **spec)
        given = RunIO(**{"dataset": dataset, "teacher": None, "output": output, "threads": 1, **(io or {})})
        self.finished: Finished = run(self.spec, given, self.events.append)
        self.report = self.finished.report

    def phases(self) -> list[str]:
        return [e.phase.value for e in self.events if isinstance(e, PhaseStarted)]

    def lines(self) -> str:
        return "\n".join(e.message for e in self.events if isinstance(e, LogLine))

    def series(self, name: str) -> list[float]:
        return [p.value for e in self.events if isinstance(e, Metrics) for p in e.points if p.name == name]


@pytest.fixture(scope="module")
def full(digits_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """A job with everything in it."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "cache").mkdir()
    return Job(
        digits_file,
        folder / "out",
        io={"shelf": FolderShelf(folder / "cache")},
        name="Digits: a small one",
        finetune={"epochs": 1},
        evaluation={"baseline": True},
        export={"onnx": True},
        targets={"min_accuracy": 0.5, "max_size_mb": 0.0001},
    )


def test_the_phases_come_in_order_each_with_a_start_and_an_end(full: Job) -> None:
    expected = ["preparing", "training_teacher", "training_baseline", "labelling", "distilling", "finetuning"]
    assert full.phases() == [*expected, "evaluating", "exporting"]
    for phase in full.phases():
        steps = [e for e in full.events if isinstance(e, Progress) and e.phase == phase]
        assert steps[0].step == 0
        assert steps[-1].step == steps[-1].steps
    assert [stage.phase for stage in full.report.stages] == full.phases()


def test_every_event_survives_the_pipe(full: Job) -> None:
    for event in [*full.events, full.finished]:
        assert TRAINER_EVENT.validate_json(event.model_dump_json()) == event


def test_the_last_event_is_returned_and_not_reported(full: Job) -> None:
    assert not any(isinstance(event, Finished) for event in full.events)


def test_losses_are_reported_for_every_epoch_and_part(full: Job) -> None:
    for series, epochs in [("training_teacher", 5), ("distilling", 3), ("finetuning", 1), ("training_baseline", 4)]:
        for name in ("loss", "loss_ce", "learning_rate", "validation_loss", "validation_accuracy"):
            values = full.series(f"{series}/{name}")
            assert len(values) == epochs
            assert all(math.isfinite(value) for value in values)
    assert len(full.series("distilling/loss_kd")) == 3
    assert full.series("training_baseline/loss_kd") == []
    assert full.report.epochs_run == {
        "training_teacher": 5,
        "distilling": 3,
        "finetuning": 1,
        "training_baseline": 4,
    }


def test_no_word_of_a_job_names_a_path_of_the_worker(full: Job) -> None:
    texts = [e.model_dump_json() for e in full.events] + [full.finished.model_dump_json()]
    texts += [(full.output / name).read_text() for name in ("README.md", "report.json", "config.json", "teacher.json")]
    secrets = (str(full.output.parent), str(Path(distill.__file__).parent), "site-packages")
    assert not [text for text in texts for secret in secrets if secret in text]
    content = (full.output / "model.onnx").read_bytes()
    assert not [secret for secret in (*secrets, ".py") if secret.encode() in content]


def test_the_output_folder_holds_the_listed_files_and_no_others(full: Job) -> None:
    listed = {file.name: file for file in full.finished.files}
    assert {path.name for path in full.output.iterdir()} == set(listed)
    assert {name: file.kind for name, file in listed.items()} == {
        "model.safetensors": "weights",
        "config.json": "config",
        "model.onnx": "onnx",
        "report.json": "report",
        "README.md": "card",
        "SHA256SUMS": "checksums",
        "teacher.safetensors": "teacher_weights",
        "teacher.json": "teacher_config",
    }
    for name, file in listed.items():
        content = (full.output / name).read_bytes()
        assert file.bytes == len(content)
        assert file.sha256 == hashlib.sha256(content).hexdigest()


def test_sha256sum_accepts_the_checksums(full: Job) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=full.output, capture_output=True, text=True, check=True
    )
    names = {"model.safetensors", "config.json", "model.onnx", "report.json", "README.md"}
    assert set(done.stdout.split()) - {"OK"} == {f"{name}:" for name in names}


def test_the_students_file_holds_the_student_alone(full: Job) -> None:
    names = set(load_file(full.output / "model.safetensors"))
    assert names == {"normalize.mean", "normalize.std"} | {
        f"network.{i}.{kind}" for i in (1, 3) for kind in ("weight", "bias")
    }
    onnx_names = {tensor.name for tensor in onnx.load(full.output / "model.onnx").graph.initializer}
    assert not [name for name in names | onnx_names if "teacher" in name]
    assert (full.output / "model.safetensors").stat().st_size < 10_000


def test_the_report_is_what_the_files_measure(full: Job, digits_file: Path) -> None:
    report = Report.model_validate_json((full.output / "report.json").read_text())
    assert report == full.report
    data = read_dataset(digits_file)
    student = report.of("student")
    assert student is not None
    found = score(distill.load(full.output), data, "test")
    assert (student.accuracy, student.errors, student.rows) == (found.accuracy, 270 - found.correct, 270)
    assert student.loss == pytest.approx(found.loss)
    assert student.size_bytes == (full.output / "model.safetensors").stat().st_size
    assert student.parameters == full.spec.student.parameters(data.facts)
    assert [model.role for model in report.models] == ["teacher", "student", "baseline"]
    assert {entry.batch for model in report.models for entry in model.latency} == {1, 64}
    assert [bool(model.latency) for model in report.models] == [True, True, False], "the baseline is not timed"
    assert all(entry.runs >= 3 and entry.p90_ms >= entry.median_ms > 0 for m in report.models for entry in m.latency)
    assert report.environment["torch"] == torch.__version__


def test_the_teacher_trained_here_can_teach_the_next_job_from_the_cache(
    full: Job, digits_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "teacher"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes((full.output / "teacher.safetensors").read_bytes())
    (folder / "config.json").write_bytes((full.output / "teacher.json").read_bytes())
    again = Job(
        digits_file,
        tmp_path / "out",
        io={"teacher": folder, "shelf": FolderShelf(full.output.parent / "cache")},
        teacher={"model": "mdl_" + "0" * 26},
        finetune={"epochs": 1},
    )
    assert "used again" in again.lines()
    assert "training_teacher" not in again.phases()
    assert again.finished.teachers == []
    assert not (again.output / "teacher.safetensors").exists()
    # From the cache or from the teacher just trained: the same student, bit for bit.
    weights = "model.safetensors"
    assert (again.output / weights).read_bytes() == (full.output / weights).read_bytes()


def test_targets_are_judged_on_what_was_measured(full: Job) -> None:
    assert full.finished.verdict == "below_target"
    assert {result.name: result.met for result in full.report.targets} == {"min_accuracy": True, "max_size_mb": False}


def test_onnx_runtime_gives_the_torch_answers_for_any_batch(full: Job, digits_file: Path) -> None:
    data = read_dataset(digits_file)
    session = Session(full.output / "model.onnx")
    net = distill.load(full.output)
    for count in (1, 2, 33, 270):
        x = data.inputs(data.rows["test"][:count])
        with torch.no_grad():
            np.testing.assert_allclose(session(x.numpy()), net(x).numpy(), atol=1e-3)
    check = full.report.onnx
    assert check is not None
    assert (check.rows, check.same_class) == (270, 1.0)
    assert check.max_abs_difference <= check.tolerance


def test_the_onnx_file_says_what_it_is(full: Job) -> None:
    model = onnx.load(full.output / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [node.name for node in model.graph.input] == ["input"]
    assert [node.name for node in model.graph.output] == ["logits"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert model.opset_import[0].version == 20
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(properties["classes"]) == list("0123456789")
    assert "raw pixels" in properties["preprocessing"]


def test_the_code_on_the_card_runs(full: Job) -> None:
    blocks = (full.output / "README.md").read_text().split("```python\n")[1:]
    assert len(blocks) == 2
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", block.split("```")[0]],
            cwd=full.output,
            env={**os.environ, "PYTHONPATH": str(Path(distill.__file__).parents[1]), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert any(digit in done.stdout for digit in "0123456789")


def test_the_card_has_a_header_hugging_face_reads_and_the_measured_table(full: Job) -> None:
    import yaml

    text = (full.output / "README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["pipeline_tag"] == "image-classification"
    assert "knowledge-distillation" in header["tags"]
    result = header["model-index"][0]["results"][0]
    student = full.report.of("student")
    assert student is not None
    assert result["metrics"][0]["value"] == pytest.approx(student.accuracy, abs=1e-6)
    for model in full.report.models:
        assert f"| {model.role} | {model.architecture} | {model.accuracy:.2%}" in text


def test_the_baseline_starts_and_trains_as_the_student_does(digits_file: Path, tmp_path: Path) -> None:
    # With no loss that reads the teacher, student and baseline are the same job twice.
    job = Job(
        digits_file,
        tmp_path / "out",
        losses=[{"kind": "ce", "label_smoothing": 0.1}],
        finetune={"epochs": 1},
        evaluation={"baseline": True},
    )
    student, baseline = job.report.of("student"), job.report.of("baseline")
    assert student is not None
    assert baseline is not None
    assert student.model_copy(update={"role": "baseline"}) == baseline
    assert job.series("training_baseline/loss_ce")[:3] == job.series("distilling/loss_ce")
    assert "No loss of this job reads the teacher" in job.lines()
    assert "labelling" not in job.phases()
    assert all(model.latency == [] for model in job.report.models)


def test_an_augmented_job_has_its_teacher_work_live(digits_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    job = Job(
        digits_file,
        tmp_path / "out",
        io={"shelf": FolderShelf(tmp_path / "cache")},
        training={"epochs": 3, "augmentation": {"crop_padding": 1, "horizontal_flip": True}},
        teacher_outputs={"views": "live"},
    )
    assert "the very views the student sees" in job.lines()
    assert "labelling" not in job.phases()
    assert list((tmp_path / "cache").iterdir()) == []
    assert job.series("distilling/loss_kd")[-1] < job.series("distilling/loss_kd")[0]
    told = Report.model_validate_json((job.output / "report.json").read_text()).teacher_outputs
    assert told is not None
    assert told.views == "live"
    assert told.reason is not None
    teacher, student = job.spec.teacher.members[0].train, job.spec.student
    assert teacher is not None
    facts = read_dataset(digits_file).facts
    costs = (teacher.architecture.macs(facts), student.macs(facts))
    assert re.findall(r"counts ([\d,]+) .* student ([\d,]+):", told.reason) == [tuple(f"{n:,}" for n in costs)]


@pytest.mark.parametrize(
    "student",
    [{"name": "cnn", "channels": [4, 8]}, {"name": "resnet", "depth": 8, "width": 4}],
    ids=lambda s: s["name"],
)
def test_convolutional_students_are_exported_as_they_were_measured(
    digits_file: Path, tmp_path: Path, student: dict[str, Any]
) -> None:
    job = Job(digits_file, tmp_path / "out", student=student, training={"epochs": 1}, export={"onnx": True})
    assert job.report.onnx is not None
    assert job.report.onnx.max_abs_difference <= job.report.onnx.tolerance
    assert job.finished.student == ModelConfig.model_validate_json((job.output / "config.json").read_text())


def test_a_table_without_a_validation_split_is_distilled_and_exported(tmp_path: Path) -> None:
    x, y, split = digits()
    table = x.reshape(len(x), -1).astype(np.float32) * 1000 - 7  # a raw scale far from 1
    path = store(tmp_path / "table", table, y, np.where(split == 1, 0, split), tuple("0123456789"))
    job = Job(path, tmp_path / "out", export={"onnx": True}, training={"epochs": 12})
    assert job.report.models[1].accuracy > 0.8
    assert job.series("distilling/validation_loss") == []
    session = Session(job.output / "model.onnx")
    given = session(table[split == 2]).argmax(1)
    assert (given == y[split == 2]).mean() == pytest.approx(job.report.models[1].accuracy)


def _fails(code: str, dataset: Path, output: Path, **spec: Any) -> JobFailure:
    with pytest.raises(JobFailure) as failure:
        Job(dataset, output, **spec)
    assert failure.value.code == code
    assert failure.value.hint
    return failure.value


def test_a_dataset_without_test_rows_is_refused(tmp_path: Path) -> None:
    x, y, split = digits()
    path = store(tmp_path / "d", x, y, np.minimum(split, 1), tuple("0123456789"))
    assert "test split" in _fails("dataset_unusable", path, tmp_path / "out").detail


def test_cuda_where_there_is_none_is_said_at_once(digits_file: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    _fails("device_unavailable", digits_file, tmp_path / "out", resources={"device": "cuda"})


def test_a_teacher_that_is_not_there_or_does_not_fit_is_unusable(full: Job, digits_file: Path, tmp_path: Path) -> None:
    teacher = {"model": "mdl_" + "0" * 26}
    _fails("teacher_unusable", digits_file, tmp_path / "a", teacher=teacher)
    empty = tmp_path / "empty"
    empty.mkdir()
    _fails("teacher_unusable", digits_file, tmp_path / "b", teacher=teacher, io={"teacher": empty})
    x, y, split = digits()
    other = store(tmp_path / "other", x[y < 9], y[y < 9], split[y < 9], tuple("abcdefghi"))
    failure = _fails("teacher_unusable", other, tmp_path / "c", teacher=teacher, io={"teacher": full.output})
    assert "'a'" in failure.detail


def test_a_loss_that_explodes_fails_the_job_with_the_step_size_to_lower(digits_file: Path, tmp_path: Path) -> None:
    training = {"epochs": 5, "optimizer": "sgd", "learning_rate": 100.0, "schedule": "constant"}
    failure = _fails("loss_not_finite", digits_file, tmp_path / "out", training=training)
    assert "learning rate" in failure.hint


def test_a_network_beyond_the_memory_fails_as_such(digits_file: Path, tmp_path: Path) -> None:
    # 65,536 × 65,536 weights are 17 GB, a second layer as many: more than the limit set on this process.
    script = f"""
import resource, sys
from pathlib import Path
from stillhouse.spec import Limits, JobSpec, resolve
from stillhouse.spec.errors import JobFailure
from distill import run, RunIO
from distill.data import read_dataset
path = Path({str(digits_file)!r})
spec = JobSpec.model_validate({{
    "dataset": {{"builtin": "digits"}}, "student": {{"name": "mlp"}},
    "teacher": {{"train": {{"architecture": {{"name": "mlp", "hidden": [65536, 65536]}}, "epochs": 1}}}},
}})
spec = resolve(spec, read_dataset(path).facts, Limits(max_parameters=10**12))
resource.setrlimit(resource.RLIMIT_AS, (12 * 10**9, 12 * 10**9))
try:
    run(spec, RunIO(dataset=path, teacher=None, output=Path({str(tmp_path)!r}), threads=1), lambda event: None)
except JobFailure as failure:
    print(failure.code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=_with_path())
    assert done.stdout.strip() == "out_of_memory"


def test_memory_that_runs_out_in_the_midst_of_training_is_told_as_such(digits_file: Path, tmp_path: Path) -> None:
    # A convolution fails in its kernels' library, which has words of its own for it.
    script = f"""
import resource
from pathlib import Path
from distill import run, RunIO
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import PhaseStarted
from tests.distill.conftest import resolved
path = Path({str(digits_file)!r})
def report(event):
    if isinstance(event, PhaseStarted) and event.phase == "distilling":
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size, -1))
spec = resolved(path, student={{"name": "cnn", "channels": [8, 16]}}, training={{"epochs": 3, "batch_size": 64}})
try:
    run(spec, RunIO(path, None, Path({str(tmp_path)!r}), threads=1), report)
except JobFailure as failure:
    print(failure.code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=_with_path())
    assert done.stdout.strip() == "out_of_memory"


def test_a_report_that_is_refused_ends_the_run_at_once(digits_file: Path, tmp_path: Path) -> None:
    class CancelledError(Exception):
        pass

    def report(event: object) -> None:
        if isinstance(event, PhaseStarted) and event.phase == "distilling":
            raise CancelledError

    with pytest.raises(CancelledError):
        run(resolved(digits_file), RunIO(digits_file, None, tmp_path, threads=1), report)
    assert list(tmp_path.iterdir()) == []


def test_a_run_leaves_the_callers_threads_and_random_numbers_alone(digits_file: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    Job(digits_file, tmp_path / "out", io={"threads": 2}, training={"epochs": 1})
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()


def _with_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(distill.__file__).parents[1])}
