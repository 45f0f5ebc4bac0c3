"""`GET /v1/jobs/{id}`: what every waiting client asks for again and again, so the one route that is made to be cheap.

One SQL statement looks at key, project and job together, and the job's bytes are kept as long as its version stays.
`answer` is what the route does. `at_hand` gives the very same answer before any route is looked for, when nothing
has to be waited for; whatever is unusual (another path, a bad key, a foreign job, a job that changed, a database that
is slow) it leaves to the route, so that there is one place that knows what is right.
"""

import hashlib
import math
import time

from starlette.concurrency import run_in_threadpool
from starlette.types import Scope

from api import conditional, rates
from api.answers import Answer, Ready
from api.auth import admitted_key, refused_key, shown_key
from api.line import FRESH_SECONDS
from api.parts import Parts
from api.rates import Standing
from api.services import jobs
from api.services.missing import missing
from api.views import job_json
from models import keys
from models.glance import Glance, WouldBlock
from stillhouse.spec.errors import Unauthorized
from stillhouse.spec.ids import is_id
from stillhouse.spec.states import JobStatus

_PREFIX = "/v1/jobs/"
_NOBODY = "job_"
"""Stands for an id that has not the form of one: the key is still checked."""


def at_hand(scope: Scope) -> Ready | None:
    """The answer to a poll for a job that has not changed since it was last asked for; None: ask the route."""
    if scope["method"] != "GET" or not scope["path"].startswith(_PREFIX) or scope["query_string"]:
        return None
    job_id = scope["path"][len(_PREFIX) :]
    if not is_id("job", job_id):
        return None
    headers = dict(scope["headers"])
    parts: Parts = scope["app"].state.parts
    try:
        glance = parts.glances.at_once(keys.digest(shown_key(headers)), job_id)
    except (Unauthorized, WouldBlock):
        return None
    if glance is None or glance.version is None:
        return None
    parts.key_use.note(glance.key_id)
    answer = parts.answers.get(job_id, glance.version)
    if answer is None or (standing := parts.request_rate.at_once(glance.key_id)) is None:
        return None
    rates.note(scope.setdefault("state", {}), standing)
    return answer.to(headers)


async def answer(parts: Parts, scope: Scope, job_id: str) -> Ready:
    """The job as it is now, or 304. Raises Unauthorized, RateLimited, NotFound."""
    headers, digest = dict(scope["headers"]), keys.digest(admitted_key(parts, scope))
    glance = await _look(parts, digest, job_id if is_id("job", job_id) else _NOBODY)
    if glance is None:
        raise refused_key(parts, scope)
    parts.strangers.passed(digest)
    parts.key_use.note(glance.key_id)
    rate = parts.request_rate
    if (standing := rate.at_once(glance.key_id)) is None:
        standing = await run_in_threadpool(_spend, parts, glance)
    rates.note(scope["state"], standing)
    if glance.version is None:
        raise missing("job", job_id)
    found = parts.answers.get(job_id, glance.version)
    if found is None:
        found = await run_in_threadpool(_load, parts, glance.project_id, job_id)
        parts.answers.keep(job_id, found)
    return found.to(headers)


def _spend(parts: Parts, glance: Glance) -> Standing:
    return parts.request_rate.spend(glance.key_id, quota=parts.request_quotas.of(glance.project_id))


async def _look(parts: Parts, digest: str, job_id: str) -> Glance | None:
    try:
        return parts.glances.at_once(digest, job_id)
    except WouldBlock:
        return await run_in_threadpool(parts.glances.look, digest, job_id)


def _load(parts: Parts, project_id: str, job_id: str) -> Answer:
    with parts.of(project_id).read() as session:
        row = jobs.find(session, project_id, job_id)
    place = parts.line.place_of(row)
    # Its place in the queue moves as others come and go.
    until = time.monotonic() + FRESH_SECONDS if row.status == JobStatus.QUEUED else math.inf
    body = job_json(row, place)
    # The version alone would not do: another release of the service may word the same job differently.
    etag = conditional.quoted(f"{row.version}-{hashlib.sha256(body).hexdigest()[:16]}").encode()
    shared = [(b"etag", etag), (b"cache-control", b"private, no-cache")]
    if not JobStatus(row.status).final:
        shared.append((b"retry-after", b"1"))
    typed = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return Answer(
        version=row.version, etag=etag, body=body, headers=typed + shared, headers_unchanged=shared, until=until
    )
