"""`stillhouse fsck | backup | restore`: what an operator does to a whole service, where its database and files are.

They are processes of the server's own code, as this package imports none of it.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from stillhouse.cli import session
from stillhouse.cli.session import AsJson
from stillhouse.spec.errors import Invalid

DataDir = Annotated[Path | None, typer.Option(help="Data folder of the service. Default: that of `stillhouse up`.")]
Limit = Annotated[str | None, typer.Option(metavar="N|default", help="`default`: as the service's settings say.")]


def fsck(
    context: typer.Context,
    deep: Annotated[bool, typer.Option("--deep", help="Read every file and compare its digest.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what is wrong.")] = False,
    all_lost: Annotated[
        bool, typer.Option("--all-lost", help="With --repair: mend also when no file is there at all.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Compare the database with the files: lost, damaged, left-over ones. Safe while the service runs.

    Exit codes: 0 nothing is wrong, or all was mended · 1 something is wrong · 2 it could not be looked at.
    """
    given = ["--deep"] * deep + ["--repair"] * repair + ["--all-lost"] * all_lost
    _run(context, "operate.fsck", given, data_dir)


def backup(
    context: typer.Context,
    target: Annotated[Path, typer.Argument(help="A new folder, or a new file that ends in .tar.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Back up database and files as they are at one moment. The service goes on meanwhile.

    Exit codes: 0 done · 1 done, but files were missing or damaged already · 2 not done.
    """
    _run(context, "operate.backup", [str(target)], data_dir)


def restore(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="What `stillhouse backup` made.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Bring a backup back, into an empty service. Its database may be of the other kind.

    What was deleted comes out of the trash by `stillhouse jobs|datasets|models restore`. Exit codes: 0 done ·
    2 not done.
    """
    _run(context, "operate.restore", [str(source)], data_dir)


def limits(
    context: typer.Context,
    project: Annotated[str | None, typer.Argument(help="Name of a project. Default: show those of all.")] = None,
    max_queued_jobs: Limit = None,
    max_running_jobs: Limit = None,
    max_storage_bytes: Limit = None,
    max_requests_per_minute: Limit = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Show limits of projects, or set those of one in place of the service's.

    Exit codes: 0 done · 2 not done.
    """
    given = {
        "--max-queued-jobs": max_queued_jobs,
        "--max-running-jobs": max_running_jobs,
        "--max-storage-bytes": max_storage_bytes,
        "--max-requests-per-minute": max_requests_per_minute,
    }
    named = [part for name, value in given.items() if value is not None for part in (name, value)]
    _run(context, "operate.limits", named if project is None else [project, *named], data_dir)


def _run(context: typer.Context, module: str, arguments: list[str], data_dir: Path | None) -> None:
    if importlib.util.find_spec("sqlalchemy") is None or importlib.util.find_spec("operate") is None:
        hint = "pip install 'stillhouse[embedded]', and run this where the service's database and files are."
        raise Invalid("The server is not installed here.", hint=hint)
    env = dict(os.environ) if data_dir is None else os.environ | {"STILLHOUSE_DATA_DIR": str(data_dir)}
    command = [sys.executable, "-m", module, *arguments, *["--json"] * session.of(context).as_json]
    raise typer.Exit(subprocess.run(command, env=env, check=False).returncode)  # noqa: S603 - our own module
