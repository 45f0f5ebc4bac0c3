"""What a trainer gets to ask the hub with: only where its job asks for published weights, and only its own tokens."""

from core.db import Database
from core.sealing import Sealer
from core.settings import Settings
from models import project_secrets
from stillhouse.spec.job import JobSpec
from stillhouse.spec.secret import secrets_named
from stillhouse.spec.students import Timm, candidates_of


def hub_of(settings: Settings, spec: JobSpec) -> str | None:
    """Address of the hub for a job whose networks begin with published weights; None for any other."""
    trained = [m.train.architecture for m in spec.teacher.members if m.train is not None]
    asks = any(isinstance(net, Timm) and net.pretrained for net in [*candidates_of(spec.student), *trained])
    return settings.hub_url or None if asks else None


def hub_tokens(database: Database, settings: Settings, project_id: str, spec: JobSpec) -> dict[str, str]:
    """{name: token} of the secrets the spec names. One that cannot be had is left out: the engine ends the job with
    `secret_unavailable` when it comes to need it."""
    wanted = {name for _, name in secrets_named(spec)}
    if not wanted:
        return {}
    with database.write() as session:
        return project_secrets.opened(session, Sealer.of(settings), project_id, sorted(wanted))
