"""What an administrator may do with the project's secrets: store, list, delete. Nobody reads one."""

import difflib

from pydantic import ValidationError

from api.bodies import MAX_ERRORS, JsonBody
from api.parts import Parts
from core.sealing import Sealer
from models import project_secrets
from models.secret import SecretRow
from stillhouse.spec.errors import Invalid, InvalidSpec, NotFound, QuotaExceeded
from stillhouse.spec.job import JobSpec
from stillhouse.spec.problems import field_errors
from stillhouse.spec.secret import MAX_SECRETS, STORE_IT, Secret, SecretRequest, is_secret_name, secrets_named
from stillhouse.spec.views import Page


def put(parts: Parts, project_id: str, name: str, body: JsonBody) -> Secret:
    """Store a secret or replace its value. Raises Invalid, QuotaExceeded."""
    try:
        wanted = SecretRequest.model_validate_json(body.raw)
    except ValidationError as error:
        wrong = field_errors(error, body.value, SecretRequest)[:MAX_ERRORS]
        raise Invalid("The secret is not valid.", errors=wrong) from None
    if not is_secret_name(name):
        detail = "A secret's name has 1 to 63 lower-case letters, digits and hyphens; no hyphen comes first."
        raise Invalid.at("path:name", "bad_secret_name", detail, hint="Choose a name such as hub or team-token.")
    with parts.of(project_id).write() as session:
        if project_secrets.count_others(session, project_id, name) >= MAX_SECRETS:
            detail = f"The project has {MAX_SECRETS} secrets, which is all it may have."
            raise QuotaExceeded(detail, hint="DELETE /v1/secrets/{name} makes room.")
        return _view(project_secrets.put(session, Sealer.of(parts.settings), project_id, name, wanted.value))


def listed(parts: Parts, project_id: str) -> Page[Secret]:
    """All of them, by name."""
    with parts.of(project_id).read() as session:
        rows = project_secrets.of_project(session, project_id)
    return Page(data=[_view(row) for row in rows], has_more=False)


def remove(parts: Parts, project_id: str, name: str) -> None:
    """Forget a secret at once. Raises NotFound."""
    with parts.of(project_id).write() as session:
        gone = is_secret_name(name) and project_secrets.remove(session, project_id, name)
    if not gone:
        raise NotFound("There is no secret of this name.", hint="GET /v1/secrets lists yours.")


def check_named(parts: Parts, project_id: str, spec: JobSpec) -> None:
    """Raises InvalidSpec unless the project has every secret the spec names."""
    wanted = list(secrets_named(spec))
    if not wanted:
        return
    with parts.of(project_id).read() as session:
        known = project_secrets.names(session, project_id)
    for pointer, name in wanted:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            detail = "The project has no secret of this name" + (
                f"; close names: {', '.join(close)}." if close else "."
            )
            hint = f"Name one of GET /v1/secrets, or {STORE_IT}, then post the job again."
            raise InvalidSpec.at(pointer, "unknown_secret", detail, hint=hint)


def _view(row: SecretRow) -> Secret:
    return Secret.model_validate(row, from_attributes=True)
