"""Checkpoints of a job: which there are, and the best student so far, cut out of the newest."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from api.parts import Parts
from api.services import jobs
from core.storage import Storage
from models import checkpoints, results
from models.artifact import ArtifactRow
from models.checkpoint import CheckpointRow
from models.job import JobRow
from stillhouse.spec.checkpoint import BEST_PREFIX
from stillhouse.spec.errors import NotFound
from stillhouse.spec.states import STUDENT_PHASES, JobStatus

_LENGTH_BYTES = 8


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A safetensors file made of parts of a stored one."""

    etag: str
    head: bytes
    storage_key: str
    slices: tuple[tuple[int, int], ...]
    """(start, end) in the stored file, in order."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.head) + sum(end - start for start, end in self.slices)

    def read(self, storage: Storage) -> Iterator[bytes]:
        """The file. Raises NotFound when it has gone meanwhile, so that the answer breaks off."""
        yield self.head
        for start, end in self.slices:
            yield from storage.read(self.storage_key, start=start, end=end)


def listed(parts: Parts, project_id: str, job_id: str) -> list[CheckpointRow]:
    """The newest first; none when the job is over."""
    with parts.of(project_id).read() as session:
        jobs.find(session, project_id, job_id)
        return checkpoints.newest(session, job_id)


def best(parts: Parts, project_id: str, job_id: str) -> Weights | ArtifactRow:
    """The student's weights: of a job that succeeded, those it made. Raises NotFound when there are none."""
    with parts.of(project_id).read() as session:
        job = jobs.find(session, project_id, job_id)
        found = checkpoints.newest(session, job_id)
        files = results.artifacts(session, job_id) if job.status == JobStatus.SUCCEEDED else []
    made = [file for file in files if file.kind == "weights"]
    if made:
        return made[0]
    for row in found:
        if row.phase in STUDENT_PHASES and (weights := _cut(parts.storage, row)) is not None:
            return weights
    raise _absent(job)


def _cut(storage: Storage, row: CheckpointRow) -> Weights | None:
    """None when the file is gone, damaged or without a student."""
    try:
        if not _is_whole(storage, row):
            return None
        length = int.from_bytes(_read(storage, row.storage_key, 0, _LENGTH_BYTES), "little")
        header = json.loads(_read(storage, row.storage_key, _LENGTH_BYTES, _LENGTH_BYTES + length))
    except NotFound:
        return None
    head, slices = _chosen(header, start=_LENGTH_BYTES + length)
    return Weights(etag=f"best-{row.sha256}", head=head, storage_key=row.storage_key, slices=slices) if slices else None


def _is_whole(storage: Storage, row: CheckpointRow) -> bool:
    digest = hashlib.sha256()
    for chunk in storage.read(row.storage_key):
        digest.update(chunk)
    return digest.hexdigest() == row.sha256


def _chosen(header: dict[str, Any], *, start: int) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    mine = {name: entry for name, entry in header.items() if name.startswith(BEST_PREFIX)}
    kept: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    slices, position = [], 0
    for name, entry in sorted(mine.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = entry["data_offsets"]
        kept[name.removeprefix(BEST_PREFIX)] = entry | {"data_offsets": [position, position + last - first]}
        slices.append((start + first, start + last))
        position += last - first
    text = json.dumps(kept).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    return len(text).to_bytes(_LENGTH_BYTES, "little") + text, tuple(slices)


def _read(storage: Storage, key: str, start: int, end: int) -> bytes:
    return b"".join(storage.read(key, start=start, end=end))


def _absent(job: JobRow) -> NotFound:
    status = JobStatus(job.status)
    if status.final:
        return NotFound(f"Job {job.id} has {status} and left no student.", hint="Its events and log say what happened.")
    return NotFound(
        f"Job {job.id} has no checkpoint of a student yet.",
        hint="One is written some time after its phase is distilling; GET …/checkpoints lists them.",
    )
