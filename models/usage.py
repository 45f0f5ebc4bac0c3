"""What a project has in the storage, counted row by row: a file two rows name counts for both."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from models.artifact import ArtifactRow
from models.checkpoint import CheckpointRow
from models.dataset import DatasetRow
from models.job import JobRow
from models.model import ModelRow
from models.teacher_output import TeacherOutputRow


def stored_bytes(session: Session, project_id: str) -> int:
    """Bytes of datasets, uploaded models, files and checkpoints of jobs, and kept teacher outputs.

    What lies in the trash counts until it is purged; a purged dataset that reports still name has no file any more.
    """
    of_jobs = (
        select(func.sum(kind.bytes)).join(JobRow, JobRow.id == kind.job_id).where(JobRow.project_id == project_id)
        for kind in (ArtifactRow, CheckpointRow)
    )
    queries = (
        select(func.sum(DatasetRow.bytes)).where(DatasetRow.project_id == project_id, DatasetRow.storage_key != ""),
        # A job's models are among its files.
        select(func.sum(ModelRow.bytes)).where(ModelRow.project_id == project_id, ModelRow.job_id.is_(None)),
        select(func.sum(TeacherOutputRow.bytes)).where(TeacherOutputRow.project_id == project_id),
        *of_jobs,
    )
    return sum(int(session.execute(query).scalar_one() or 0) for query in queries)
