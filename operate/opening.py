"""How an operator's command begins: which service, whether its database can be worked on, and how it ends."""

import json
import sys
from pathlib import Path
from typing import Any

from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from core.db import Database
from core.settings import Settings
from models import schema


class Refused(Exception):
    """The command cannot do what it was asked; the message names the fix."""


def opened(settings: Settings) -> Database:
    """The service's database, migrated to this release. Raises Refused; makes nothing."""
    url = make_url(settings.resolved_database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        raise Refused(f"There is no database at {url.database}. Name the data folder: --data-dir FOLDER")
    database = Database(settings.resolved_database_url)
    try:
        schema.check(database)
        with database.read() as session:
            found = schema.revision(session)
    except schema.DatabaseIsNewer as error:
        database.close()
        raise Refused(str(error)) from None
    except SQLAlchemyError as error:
        database.close()
        raise Refused("The database does not answer, or was never migrated: python -m models.migrate") from error
    if schema.is_behind(found):
        database.close()
        raise Refused(f"The database is at revision {found}, before {schema.head()}: python -m models.migrate")
    return database


def answer(value: dict[str, Any], lines: list[str], *, as_json: bool) -> None:
    """Print what was done: one JSON document, or lines for people."""
    text = json.dumps(value, ensure_ascii=False, indent=2) if as_json else "\n".join(lines)
    sys.stdout.write(text + "\n")


def complain(message: str) -> int:
    """Say on standard error why nothing was done; returns the exit status."""
    sys.stderr.write(message + "\n")
    return 2
