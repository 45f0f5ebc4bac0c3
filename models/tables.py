"""All tables, for the migrations and for a look at the whole record."""

from models.api_key import ApiKeyRow
from models.artifact import ArtifactRow
from models.audit import AuditRow
from models.base import Base
from models.checkpoint import CheckpointRow
from models.dataset import DatasetRow
from models.event import EventRow
from models.idempotency import IdempotencyRow
from models.job import JobRow
from models.metric import MetricRow
from models.model import ModelRow
from models.project import ProjectRow
from models.secret import SecretRow
from models.storage_hold import StorageHoldRow
from models.teacher_output import TeacherOutputRow, TeacherOutputUseRow
from models.webhook_delivery import WebhookDeliveryRow
from models.worker import WorkerRow

metadata = Base.metadata

__all__ = [
    "ApiKeyRow",
    "ArtifactRow",
    "AuditRow",
    "Base",
    "CheckpointRow",
    "DatasetRow",
    "EventRow",
    "IdempotencyRow",
    "JobRow",
    "MetricRow",
    "ModelRow",
    "ProjectRow",
    "SecretRow",
    "StorageHoldRow",
    "TeacherOutputRow",
    "TeacherOutputUseRow",
    "WebhookDeliveryRow",
    "WorkerRow",
    "metadata",
]
