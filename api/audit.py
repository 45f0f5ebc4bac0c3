"""Which requests go into the audit log, and the entry: written after the deed and before the answer is sent.

The deed stands by then, whatever comes of the entry: a process that is killed between the two leaves none.

Whatever needs more than the scope read is written down, also when it was refused; what a key may read with that scope
is not, but for how it was used. A request that is over its key's limit did nothing, and is left out.
"""

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import Message, Scope

from api.parts import Parts
from models import audits

log = structlog.get_logger()


def is_due(scope: Scope) -> bool:
    """True when the answer to this request belongs into the log."""
    return bool(scope.get("state", {}).get("needed", "read") != "read")


def record(scope: Scope, answer: Message, request_id: str) -> None:
    """Add the entry. A database that is away by now hinders no answer: the process's own log has the entry then."""
    parts: Parts = scope["app"].state.parts
    state = scope["state"]
    caller, client = state["caller"], scope.get("client")
    entry = {
        "action": state["action"],
        "target": _target(scope, answer),
        "key_id": caller.key_id,
        "address": None if client is None else str(client[0]),
        "status": answer["status"],
        "code": state.get("problem"),
        "request_id": request_id,
    }
    try:
        with parts.of(caller.project_id).write() as session:
            audits.add(session, caller.project_id, **entry)
    except SQLAlchemyError as error:
        log.error("audit entry not stored", project_id=caller.project_id, error=type(error).__name__, **entry)


def _target(scope: Scope, answer: Message) -> str | None:
    """What was made, else what the path names."""
    made = dict(answer["headers"]).get(b"location")
    if made is not None:
        return str(made, "latin-1").rpartition("/")[2]
    named = scope["state"]["path_ids"]
    return named[0] if named else None
