"""Running one job in this process, and keeping what it found."""

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import distill
from benchmarks.hinton.protocol import Job
from stillhouse.spec import DataFacts, JobSpec, Limits, resolve
from stillhouse.spec.report import Report


@dataclass(frozen=True)
class Found:
    """What a job found on the test split."""

    name: str
    errors: int
    """Of the student."""
    teacher_errors: int
    rows: int
    seconds: float


def run(job: Job, dataset: Path, facts: DataFacts, teacher: Path | None, folder: Path, threads: int) -> Found:
    """Run `job` and leave its files in `folder`; one that has run there already is not run again."""
    found, text = folder / "found.json", json.dumps([job.spec, job.images])
    if found.exists() and (folder / "job.json").read_text() == text:
        return Found(**json.loads(found.read_text()))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(text)
    start = time.perf_counter()
    spec = resolve(JobSpec.model_validate(job.spec), facts, Limits())
    files = folder / "files"
    files.mkdir()
    cache = folder.parent / "teacher outputs"
    cache.mkdir(exist_ok=True)
    shelf = distill.FolderShelf(cache)
    io = distill.RunIO(dataset=dataset, teacher=teacher, output=files, shelf=shelf, threads=threads)
    report = distill.run(spec, io, lambda _event: None).report
    result = _found(job.name, report, time.perf_counter() - start)
    whole = folder / "found.part"  # a run that is broken here leaves no half of a result
    whole.write_text(json.dumps(asdict(result)))
    whole.replace(found)
    return result


def teacher_folder(files: Path, folder: Path) -> Path:
    """The teacher a job has trained, as the model folder other jobs take."""
    folder.mkdir(exist_ok=True)
    shutil.copy(files / "teacher.safetensors", folder / "model.safetensors")
    shutil.copy(files / "teacher.json", folder / "config.json")
    return folder


def _found(name: str, report: Report, seconds: float) -> Found:
    teacher, student = report.models[:2]
    return Found(name, student.errors, teacher.errors, student.rows, seconds)
