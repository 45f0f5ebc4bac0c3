"""How often the keys of a project may ask: looked up for each project now and then, as every request needs it."""

import time

from core.db import Database
from models import project_limits
from models.tenancy import Tenant
from stillhouse.spec.limits import Limits

FRESH_SECONDS = 10.0
_PROJECTS = 10_000


class RequestQuotas:
    """Requests per minute by project; a change is in force within `FRESH_SECONDS`."""

    def __init__(self, database: Database, limits: Limits) -> None:
        self._database, self._limits = database, limits
        self._known: dict[str, tuple[float, int]] = {}

    def of(self, project_id: str) -> int:
        """May ask the database."""
        seen, quota = self._known.get(project_id, (float("-inf"), 0))
        now = time.monotonic()
        if now - seen <= FRESH_SECONDS:
            return quota
        with Tenant(self._database, project_id).read() as session:
            quota = project_limits.in_force(session, project_id, self._limits).max_requests_per_minute
        if len(self._known) >= _PROJECTS:
            self._known = {}
        self._known[project_id] = (now, quota)
        return quota
