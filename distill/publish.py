"""From trained and measured networks to the files a customer takes away."""

import importlib.metadata
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel

from distill.data import Dataset
from distill.device import give_back
from distill.evaluate import Score
from distill.export.card import card
from distill.export.files import OutputFolder
from distill.export.latencies import Latencies
from distill.export.onnx import OPSET, check, check_standard, to_onnx, to_onnx_beside
from distill.export.runtime import THREADS, Run, Session, failed, latencies
from distill.model import CONFIG, WEIGHTS, Model
from distill.reporter import Reporter
from distill.stages import Stage
from distill.summary import describe, gap_recovered, judge, layers_compared, lead_by_chance, measured, warnings
from distill.teacher import Teacher
from distill.teachers.networks import LIBRARY_ERRORS
from stillhouse import __version__
from stillhouse.spec import JobSpec
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import Finished, ModelConfig
from stillhouse.spec.report import ChosenStudent, Latency, OnnxCheck, Report
from stillhouse.spec.states import Phase, Verdict


def publish(
    spec: JobSpec,
    data: Dataset,
    teacher: Teacher,
    models: list[Model],
    scores: list[Score],
    chosen: ChosenStudent | None,
    epochs: dict[str, int],
    stages: Sequence[Stage],
    notes: Sequence[str],
    output: Path,
    known: Latencies,
    reporter: Reporter,
) -> Finished:
    """Write the student, its ONNX twin, the report and the card to `output`.

    `models` are the student and, if it was trained, the baseline; `scores` on the test split come in the order
    teacher, student, baseline; `notes` are warnings from before. Raises JobFailure `export_failed` or
    `export_mismatch`.
    """
    student = models[0]
    for model in models:
        model.net.cpu()  # where ONNX Runtime is held against it
    folder = OutputFolder(output)
    with reporter.phase(Phase.EXPORTING, steps=2):
        folder.write(WEIGHTS, "weights", student.weights)
        folder.write(CONFIG, "config", _json(student.config))
        exported = _exported(spec, data, teacher, models, folder, known, reporter)
        report, verdict = _report(
            spec, data, teacher, models, scores, chosen, exported, reporter, epochs, stages, notes
        )
        folder.write("report.json", "report", _json(report))
        folder.write("README.md", "card", card(spec, student.config, report, onnx=spec.export.onnx).encode())
        folder.write_checksums()
        for name, model in zip(_names(spec, teacher), teacher.trained, strict=True):
            folder.write(f"{name}.safetensors", "teacher_weights", model.weights)
            folder.write(f"{name}.json", "teacher_config", _json(model.config))
    return Finished(
        report=report,
        verdict=verdict,
        student=student.config,
        teachers=[model.config for model in teacher.trained],
        files=folder.files,
    )


@dataclass(frozen=True)
class Exported:
    """What running the networks through ONNX showed."""

    check: OnnxCheck | None
    latency: dict[str, list[Latency]]
    """By role."""
    notes: list[str]


def _names(spec: JobSpec, teacher: Teacher) -> list[str]:
    """What the files of each teacher trained here are called: by its place among the members of an ensemble."""
    if spec.teacher.ensemble is None:
        return ["teacher"] * len(teacher.trained)
    return [f"teacher-{i}" for i, member in enumerate(spec.teacher.members) if member.train is not None]


def _exported(
    spec: JobSpec,
    data: Dataset,
    teacher: Teacher,
    models: list[Model],
    folder: OutputFolder,
    known: Latencies,
    reporter: Reporter,
) -> Exported:
    """Export, check and time the student, and time the teacher beside it, which may fail where the student may not.

    The baseline is not timed: it is the student's network, and weights do not change the time.
    """
    student = models[0]
    if not spec.export.onnx and spec.targets.max_latency_ms is None:
        return Exported(None, {}, [])
    beside, notes = _teacher_times(teacher, student.config, data, known)
    give_back()
    reporter.advance(step=1)
    content = to_onnx(student.net, student.config)
    check_standard(content)
    session = Session(content)
    found = check(session, student.net, data)
    if spec.export.onnx:
        folder.write("model.onnx", "onnx", content)
    times = _times(session, data)
    reporter.advance(step=2)
    return Exported(found, {"teacher": beside, "student": times}, notes)


def _teacher_times(
    teacher: Teacher, student: ModelConfig, data: Dataset, known: Latencies
) -> tuple[list[Latency], list[str]]:
    """Its latency, or why there is none. That of a teacher trained in this job is nobody else's."""
    if not teacher.trained and (found := known.recall(teacher.fingerprint, data.facts.shape)) is not None:
        return found, []
    try:
        if teacher.timing == "as it runs":
            times = _times_of_graph(teacher, data)
        else:
            times = _exported_times(teacher, student, data)
    except JobFailure:
        return [], ["The teacher could not be exported to ONNX, so its latency was not measured."]
    if not teacher.trained:
        known.remember(teacher.fingerprint, data.facts.shape, times)
    return times, []


def _exported_times(teacher: Teacher, student: ModelConfig, data: Dataset) -> list[Latency]:
    if teacher.timing == "never":
        raise failed("a part of it is a graph already")
    with tempfile.TemporaryDirectory() as folder:  # a large teacher is not held beside its session
        file = to_onnx_beside(teacher.net.cpu(), student, Path(folder))  # rows as the student's
        give_back()
        session = Session(file)
    give_back()
    return _times(session, data)


def _times_of_graph(teacher: Teacher, data: Dataset) -> list[Latency]:
    """Of a graph with what torch does before and behind it: preprocessing, and the classes of the dataset."""
    net, threads = teacher.net.cpu(), torch.get_num_threads()
    torch.set_num_threads(THREADS)
    try:
        with torch.no_grad():
            return _times(lambda rows: net(torch.from_numpy(rows)).numpy(), data)
    except LIBRARY_ERRORS as error:
        raise failed("ONNX Runtime does not run the graph") from error
    finally:
        torch.set_num_threads(threads)


def _report(
    spec: JobSpec,
    data: Dataset,
    teacher: Teacher,
    models: list[Model],
    scores: list[Score],
    chosen: ChosenStudent | None,
    exported: Exported,
    reporter: Reporter,
    epochs: dict[str, int],
    stages: Sequence[Stage],
    notes: Sequence[str],
) -> tuple[Report, Verdict | None]:
    networks = [("teacher", teacher.described, teacher.parameters, teacher.size_bytes)]
    for model in models:
        described = describe(model.config.architecture, model.config.facts)
        networks.append((model.role, described, model.config.parameters, len(model.weights)))
    rows = [
        measured(
            role,
            described,
            found,
            data,
            teacher=scores[0],
            parameters=parameters,
            size_bytes=size_bytes,
            latency=exported.latency.get(role, []),
        )
        for (role, described, parameters, size_bytes), found in zip(networks, scores, strict=True)
    ]
    targets, verdict = judge(spec.targets, rows[1])
    report = Report(
        models=rows,
        chosen_student=chosen,
        gap_recovered=gap_recovered(rows[0], rows[1], rows[2] if len(rows) > 2 else None),
        targets=targets,
        onnx=exported.check,
        stages=reporter.stage_times(),
        epochs_run=epochs,
        layer_pairs=layers_compared(stages),
        teacher_outputs=spec.teacher_outputs,
        device=_device_name(data.x.device),
        environment=_environment(),
        warnings=[*warnings(spec, data, rows), *lead_by_chance(scores, data), *exported.notes, *notes],
    )
    for warning in report.warnings:
        reporter.say(warning, "warning")
    return report, verdict


def _times(run: Run, data: Dataset) -> list[Latency]:
    return latencies(run, data.inputs(data.rows["test"][:64]).cpu().numpy())


def _json(value: BaseModel) -> bytes:
    return (value.model_dump_json(indent=2) + "\n").encode()


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _environment() -> dict[str, str]:
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "onnx", "onnxruntime", "safetensors")}
    return {
        "stillhouse": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        **versions,
        "onnx_opset": str(OPSET),
        "cpu_threads": str(torch.get_num_threads()),
        "machine": platform.machine(),
    }
