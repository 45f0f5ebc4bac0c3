"""`python -m api.keys`: make, list, rotate and revoke API keys, on the service's database."""

import argparse
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import get_args

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from core.db import Database
from core.settings import Settings, WrongSettings
from models import audits, keys, schema
from models.api_key import ApiKeyRow
from models.base import db_now
from stillhouse.spec.base import Name
from stillhouse.spec.keys import MAX_DAYS, Scope

_NAMES: TypeAdapter[list[str]] = TypeAdapter(list[Name])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status says whether it worked."""
    args = _parser().parse_args(arguments)
    try:
        settings = Settings() if args.data_dir is None else Settings(data_dir=args.data_dir)
    except WrongSettings as error:
        _complain(str(error))
        return 1
    url = settings.resolved_database_url
    if (nowhere := _missing_file(url)) is not None:
        _complain(f"There is no database at {nowhere}. Name the data folder: --data-dir FOLDER")
        return 1
    schema.check_or_exit(url)
    database = Database(url)
    try:
        return _run(database, args)
    except SQLAlchemyError:
        _complain("The database does not answer, or was never migrated: check STILLHOUSE_DATABASE_URL.")
        return 1
    finally:
        database.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m api.keys", description=__doc__)
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "--data-dir", type=Path, metavar="FOLDER", help="of `stillhouse up` (default: STILLHOUSE_DATA_DIR, or its own)"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", parents=[folder], help="make a key and print it, this once")
    create.add_argument("--project", default="default", help="made if it does not exist (default: %(default)s)")
    create.add_argument("--name", required=True, help="what the key is for")
    create.add_argument(
        "--scope", choices=get_args(Scope), default="write", help="each includes those before it (default: %(default)s)"
    )
    create.add_argument("--expires-in-days", type=_days, metavar="DAYS", help="default: it lasts until it is revoked")
    rotate = commands.add_parser(
        "rotate", parents=[folder], help="make a key in place of another and print it, this once"
    )
    rotate.add_argument("id", help="as `list` shows it: key_…")
    rotate.add_argument(
        "--overlap-hours", type=float, default=24.0, metavar="H", help="how long the old one stays good (default: 24)"
    )
    commands.add_parser("list", parents=[folder], help="show all keys, without the keys themselves")
    revoke = commands.add_parser("revoke", parents=[folder], help="end a key for good")
    revoke.add_argument("id", help="as `list` shows it: key_…")
    return parser


def _missing_file(url: str) -> str | None:
    """The SQLite file that is not there, which connecting would make, empty."""
    at = make_url(url)
    if at.get_backend_name() != "sqlite" or Path(at.database or "").is_file():
        return None
    return at.database


def _run(database: Database, args: argparse.Namespace) -> int:
    if args.command == "create":
        return _create(database, args)
    if args.command == "rotate":
        return _rotate(database, args.id, timedelta(hours=args.overlap_hours))
    if args.command == "list":
        return _list(database)
    return _revoke(database, args.id)


def _create(database: Database, args: argparse.Namespace) -> int:
    try:
        _NAMES.validate_python([args.project, args.name])
    except ValidationError:
        _complain("Names have 1 to 100 letters, digits, spaces and . : @ + - _, and begin with a letter or digit.")
        return 1
    with database.write() as session:
        project = keys.project_named(session, args.project)
        row, key = keys.make(session, project.id, name=args.name, scope=args.scope, days=args.expires_in_days)
        audits.add(session, project.id, action="create_key", target=row.id)
    _say(key)
    return 0


def _rotate(database: Database, key_id: str, overlap: timedelta) -> int:
    with database.write() as session:
        row = session.get(ApiKeyRow, key_id)
        if row is None or row.revoked_at is not None or row.replaced_by is not None:
            _complain(f"There is no key {key_id} to rotate: `python -m api.keys list` shows all.")
            return 1
        _, key = keys.rotate(session, row, overlap=overlap)
        audits.add(session, row.project_id, action="rotate_key", target=row.id)
    _say(key)
    return 0


def _list(database: Database) -> int:
    with database.read() as session:
        now = db_now(session)
        for row, project in keys.listed(session):
            used = "never used" if row.last_used_at is None else f"used {row.last_used_at:%Y-%m-%d}"
            ended = row.expires_at is not None and row.expires_at <= now
            state = "expired" if ended and row.revoked_at is None else _state(row)
            _say(f"{row.id}  {row.created_at:%Y-%m-%d}  {state}  {row.scope}  {used}  {project}  {row.name}")
    return 0


def _state(row: ApiKeyRow) -> str:
    if row.revoked_at is not None:
        return f"revoked {row.revoked_at:%Y-%m-%d}"
    return "active" if row.expires_at is None else f"until {row.expires_at:%Y-%m-%d}"


def _days(text: str) -> float:
    days = float(text)
    if not 0 < days <= MAX_DAYS:
        raise argparse.ArgumentTypeError(f"give more than 0 and at most {MAX_DAYS:g} days")
    return days


def _revoke(database: Database, key_id: str) -> int:
    with database.write() as session:
        done = keys.revoke(session, key_id)
        if done:
            row = session.get_one(ApiKeyRow, key_id)
            audits.add(session, row.project_id, action="revoke_key", target=key_id)
    if not done:
        _complain(f"There is no active key {key_id}: `python -m api.keys list` shows all.")
        return 1
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _complain(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
