"""`python -m api.keys`: make, list and revoke API keys, on the database of the environment's settings."""

import argparse
import sys
from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from core.db import Database
from core.settings import Settings
from models import keys
from stillhouse.spec.base import Name

_NAMES: TypeAdapter[list[str]] = TypeAdapter(list[Name])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status says whether it worked."""
    args = _parser().parse_args(arguments)
    database = Database(Settings().resolved_database_url)
    try:
        return _run(database, args)
    except SQLAlchemyError:
        _complain("The database does not answer, or was never migrated: check STILLHOUSE_DATABASE_URL.")
        return 1
    finally:
        database.close()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m api.keys", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make a key and print it, this once")
    create.add_argument("--project", default="default", help="made if it does not exist (default: %(default)s)")
    create.add_argument("--name", required=True, help="what the key is for")
    commands.add_parser("list", help="show all keys, without the keys themselves")
    revoke = commands.add_parser("revoke", help="end a key for good")
    revoke.add_argument("id", help="as `list` shows it: key_…")
    return parser


def _run(database: Database, args: argparse.Namespace) -> int:
    if args.command == "create":
        return _create(database, args.project, args.name)
    if args.command == "list":
        return _list(database)
    return _revoke(database, args.id)


def _create(database: Database, project: str, name: str) -> int:
    try:
        _NAMES.validate_python([project, name])
    except ValidationError:
        _complain("Names have 1 to 100 letters, digits, spaces and . : @ + - _, and begin with a letter or digit.")
        return 1
    with database.write() as session:
        key = keys.issue(session, keys.project_named(session, project).id, name=name)
    _say(key)
    return 0


def _list(database: Database) -> int:
    with database.read() as session:
        for row, project in keys.listed(session):
            state = "active" if row.revoked_at is None else f"revoked {row.revoked_at:%Y-%m-%d}"
            _say(f"{row.id}  {row.created_at:%Y-%m-%d}  {state}  {project}  {row.name}")
    return 0


def _revoke(database: Database, key_id: str) -> int:
    with database.write() as session:
        done = keys.revoke(session, key_id)
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
