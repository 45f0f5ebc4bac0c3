"""What the process holds while it serves, and how a route gets at it."""

from dataclasses import dataclass
from threading import Event
from typing import Annotated

from anyio import CapacityLimiter
from fastapi import Depends
from starlette.requests import Request

from api.answers import Answers
from api.cursors import Cursors
from api.key_use import KeyUse
from api.line import WaitingLine
from api.project_limits import RequestQuotas
from api.rates import Rate
from api.recent import Recent
from api.strangers import Strangers
from core.broker import Doorbell
from core.db import Database
from core.settings import Settings
from core.shared_bucket import SharedBuckets
from core.storage import Storage
from models.glance import Glances
from models.tenancy import Tenant
from stillhouse.spec.views import Readiness


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The outside world of the API. Made after the process has started, closed before it ends."""

    settings: Settings
    database: Database
    """Shows nothing of any project: rows of one are read and written with `of`."""
    storage: Storage
    doorbell: Doorbell
    cursors: Cursors
    glances: Glances
    key_use: KeyUse
    answers: Answers
    line: WaitingLine
    readiness: Recent[Readiness]
    buckets: SharedBuckets
    request_rate: Rate
    """By key."""
    request_quotas: RequestQuotas
    upload_rate: Rate
    """By project."""
    strangers: Strangers
    stopping: Event
    """Set when the process is told to end: open streams end then."""
    readers: CapacityLimiter
    """Lets a few uploads be read at a time."""

    def of(self, project_id: str) -> Tenant:
        """The database as one project sees it."""
        return Tenant(self.database, project_id)


async def parts_of(request: Request) -> Parts:
    """The parts of the app that serves this request. Async, because FastAPI sends any other function to a thread."""
    parts: Parts = request.app.state.parts
    return parts


InParts = Annotated[Parts, Depends(parts_of)]
