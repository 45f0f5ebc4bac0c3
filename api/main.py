"""The HTTP app. Never imports torch or a reader of files: it starts in under a second."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from threading import Event

from anyio import CapacityLimiter
from fastapi import FastAPI
from fastapi.routing import APIRoute

import stillhouse
from api import openapi, polling, problems
from api.answers import Answers
from api.cursors import Cursors
from api.key_use import KeyUse
from api.line import WaitingLine
from api.middleware import Edge
from api.parts import Parts
from api.project_limits import RequestQuotas
from api.rates import Rate
from api.recent import Recent
from api.routes import (
    artifacts,
    audit,
    catalogue,
    checkpoints,
    datasets,
    following,
    health,
    jobs,
    keys,
    models,
    secrets,
    teacher_outputs,
    usage,
    verbs,
    webhooks,
)
from api.services import workspace
from api.strangers import Strangers
from core.broker import Doorbell
from core.secret import secret_key
from core.settings import Settings
from core.shared_bucket import SharedBuckets
from core.storage import make_storage
from models import schema
from models.glance import Glances
from models.tenancy import confined

_READINESS_SECONDS = 0.5
_READERS = 2
"""Uploads read at the same time: each may take the memory that `limits.max_ingest_memory_bytes` allows."""


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app. Nothing is opened before it starts: connections must be made after a fork."""
    app = FastAPI(
        title="Stillhouse",
        version=stillhouse.__version__,
        summary="Distillation as a service.",
        lifespan=partial(_lifespan, settings or Settings()),
        generate_unique_id_function=_operation_id,
        # One schema per model, that of what a caller may send: a spec of four fields is whole.
        separate_input_output_schemas=False,
        docs_url=None,
        redoc_url=None,
        # A redirect would be built from the Host header.
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.add_middleware(Edge, at_hand=polling.at_hand)
    app.openapi = partial(openapi.describe, app)  # type: ignore[method-assign]
    problems.install(app)
    job_parts = (jobs, verbs, following, checkpoints, artifacts)
    for module in (
        health,
        datasets,
        *job_parts,
        models,
        teacher_outputs,
        catalogue,
        webhooks,
        keys,
        secrets,
        usage,
        audit,
    ):
        app.include_router(module.router)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


@asynccontextmanager
async def _lifespan(settings: Settings, app: FastAPI) -> AsyncIterator[None]:
    limits, buckets = settings.limits, SharedBuckets(settings)
    database = confined(settings.resolved_database_url)
    schema.check(database)
    parts = Parts(
        settings=settings,
        database=database,
        storage=make_storage(settings),
        doorbell=Doorbell(settings),
        cursors=Cursors(secret_key(settings)),
        glances=Glances(database),
        key_use=KeyUse(database),
        answers=Answers(),
        line=WaitingLine(database, settings),
        buckets=buckets,
        request_rate=Rate("requests", quota=limits.max_requests_per_minute, seconds=60, shared=buckets),
        request_quotas=RequestQuotas(database, limits),
        upload_rate=Rate("uploads", quota=limits.max_uploads_per_hour, seconds=3600, shared=buckets),
        strangers=Strangers(quota=limits.max_failed_keys_per_minute),
        readiness=Recent(seconds=_READINESS_SECONDS),
        stopping=Event(),
        readers=CapacityLimiter(_READERS),
    )
    workspace.sweep(settings)
    app.state.parts = parts
    try:
        yield
    finally:
        parts.doorbell.close()
        parts.buckets.close()
        parts.key_use.close()
        parts.glances.close()
        parts.database.close()
