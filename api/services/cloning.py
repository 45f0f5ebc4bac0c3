"""A new job like an old one: its spec as it was posted, with changes as a JSON merge patch (RFC 7396)."""

import hashlib
import json
from typing import Any

from api.bodies import JsonBody
from api.parts import Parts
from api.services import jobs
from api.services.jobs import Submitted
from stillhouse.spec.errors import Invalid


def clone(
    parts: Parts, project_id: str, job_id: str, patch: JsonBody | None, *, idempotency_key: str | None
) -> Submitted:
    """Submit it. Raises what a submission raises; pointers are into the changed spec."""
    if patch is not None and not isinstance(patch.value, dict):
        raise Invalid.at("", "not_an_object", 'The changes must be a JSON object, such as {"temperature": 2}.')
    with parts.of(project_id).read() as session:
        spec = jobs.find(session, project_id, job_id).spec
    changed = spec if patch is None else merged(spec, patch.value)
    raw = json.dumps(changed).encode()
    said = b"" if patch is None else patch.raw
    digest = hashlib.sha256(f"clone {job_id} ".encode() + said).hexdigest()
    body = JsonBody(raw=raw, value=changed)
    return jobs.submit(parts, project_id, body, idempotency_key=idempotency_key, digest=digest, cloned_from=job_id)


def merged(target: Any, patch: Any) -> Any:
    """`target` changed by `patch`: objects are merged, null removes, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, change in patch.items():
        if change is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), change)
    return result
