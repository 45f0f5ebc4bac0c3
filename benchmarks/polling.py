"""What a poll costs: `GET /v1/jobs/{id}` against a bare Starlette route that returns the same bytes.

    python -m benchmarks.polling [--rounds 11] [--seconds 1] [--connections 16]

Both run as real uvicorn processes with the settings of `python -m api`; a third process sends the requests over
kept connections. The two servers take turns, so that whatever else the machine does falls on both; the medians'
ratio is printed, for a job that changed (200) and for one that did not (304). Beside it stands the processor time
each server spent per request, which a busy machine does not blur.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop

PATH = "/v1/jobs/{id}"


class Connection(asyncio.Protocol):
    """Sends one request after the other, and counts the answers that are as they should be."""

    def __init__(self, request: bytes, status: bytes, until: float) -> None:
        self.request, self.status, self.until = request, status, until
        self.answers = 0
        self.buffer = b""
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(self.request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        if not self.buffer.startswith(self.status, 9):
            raise SystemExit(f"unexpected answer: {self.buffer[:200]!r}")
        at = self.buffer.find(b"content-length: ", 0, head)
        length = 0 if at < 0 else int(self.buffer[at + 16 : self.buffer.index(b"\r", at)])
        if len(self.buffer) < head + 4 + length:
            return
        self.buffer = b""
        self.answers += 1
        if time.perf_counter() < self.until:
            self.transport.write(self.request)  # type: ignore[attr-defined]
        else:
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("closed by the server"))


async def load(port: int, request: bytes, status: bytes, seconds: float, connections: int) -> tuple[int, float]:
    """Send for some seconds. Returns how many answers came, and the seconds it took."""
    loop = asyncio.get_running_loop()
    start = time.perf_counter()
    made = [
        await loop.create_connection(lambda: Connection(request, status, start + seconds), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.gather(*(connection.done for _, connection in made))
    took = time.perf_counter() - start
    for transport, _ in made:
        transport.close()
    return sum(connection.answers for _, connection in made), took


def send_load(port: int, request: bytes, status: bytes, args: argparse.Namespace) -> tuple[int, float]:
    """Answers and seconds of one measurement, whose sender is a process of its own."""
    order = {"port": port, "request": request.decode(), "status": status.decode()}
    command = [sys.executable, "-m", "benchmarks.polling", "--load", json.dumps(order)]
    command += ["--seconds", str(args.seconds), "--connections", str(args.connections)]
    answers, seconds = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return int(answers), float(seconds)


def bare_app(body: bytes, etag: str):
    """The route to compare with: an async function that returns ready bytes."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def job(request: Request) -> Response:
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"etag": etag})
        return Response(body, media_type="application/json", headers={"etag": etag})

    return Starlette(routes=[Route("/v1/jobs/{job_id}", job)])


def serve_bare(fd: int, body: Path, etag: str) -> None:
    """Run the bare app as `python -m api` runs ours."""
    import uvicorn

    from api.__main__ import server_config
    from core.settings import Settings

    config = server_config(Settings(), bare_app(body.read_bytes(), etag))
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


@dataclass
class Running:
    """A server process, and what was measured on it."""

    port: int
    process: psutil.Process
    rates: list[float] = field(default_factory=list)
    micros: list[float] = field(default_factory=list)
    """Processor time per request."""

    def measure(self, request: bytes, status: bytes, args: argparse.Namespace) -> None:
        before = self.process.cpu_times()
        answers, seconds = send_load(self.port, request, status, args)
        after = self.process.cpu_times()
        self.rates.append(answers / seconds)
        self.micros.append((after.user + after.system - before.user - before.system) / answers * 1e6)


@contextmanager
def server(*arguments: str, env: dict[str, str]) -> Iterator[Running]:
    """A server process on a port of its own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        port: int = listener.getsockname()[1]
        fd = listener.fileno()
        command = [sys.executable, *arguments, "--fd", str(fd)]
        process = subprocess.Popen(command, pass_fds=[fd], env={**os.environ, **env}, stderr=subprocess.DEVNULL)
    try:
        yield Running(port, psutil.Process(process.pid))
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def prepare(folder: Path) -> tuple[str, str, dict[str, str]]:
    """A service's data folder with one key and one waiting job. Returns key, job id and environment."""
    from core.db import Database
    from core.settings import Settings
    from models import datasets, jobs, keys, migrate
    from stillhouse.spec import DataFacts, DataReport, JobSpec, Limits, StoredDataset, resolve
    from stillhouse.spec.ids import new_id

    settings = Settings(data_dir=folder, database_url=f"sqlite:///{folder / 'stillhouse.db'}")
    migrate.upgrade(settings.resolved_database_url)
    spec = JobSpec.model_validate(
        {
            "teacher": {"train": {"architecture": {"name": "mlp"}}},
            "dataset": {"builtin": "digits"},
            "student": {"name": "mlp"},
        }
    )
    facts = DataFacts(
        task="image-classification",
        shape=(1, 8, 8),
        dtype="uint8",
        classes=tuple("0123456789"),
        rows={"train": 1259, "validation": 269, "test": 269},
    )
    report = DataReport(rows_read=1797, rows_kept=1797, rows_dropped=0, class_counts={})
    database = Database(settings.resolved_database_url)
    with database.write() as session:
        project = keys.project_named(session, "default").id
        key = keys.issue(session, project, name="benchmark")
        data = datasets.add(
            session,
            project,
            id=new_id("ds"),
            name="digits",
            format="builtin",
            storage_key="none",
            bytes=1,
            sha256="0" * 64,
            stored=StoredDataset(facts=facts, report=report),
        )
        resolved = resolve(spec, facts, Limits())
        job_id = jobs.create(session, project, spec=spec, resolved=resolved, dataset_id=data.id).id
    database.close()
    env = {"STILLHOUSE_DATA_DIR": str(folder), "STILLHOUSE_DATABASE_URL": settings.resolved_database_url}
    return key, job_id, env


def one_answer(port: int, request: bytes) -> tuple[str, bytes]:
    """ETag and body of one answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(request)
        file = connection.makefile("rb")
        headers: dict[str, str] = {}
        while (line := file.readline().decode().strip()) != "":
            name, _, value = line.partition(": ")
            headers[name] = value
        return headers["etag"], file.read(int(headers["content-length"]))


def request_for(job_id: str, key: str, etag: str | None = None) -> bytes:
    """What a polling client sends."""
    lines = [f"GET /v1/jobs/{job_id} HTTP/1.1", "Host: 127.0.0.1", "User-Agent: stillhouse/0.1.0"]
    lines += ["Accept: application/json", "Accept-Encoding: gzip", f"Authorization: Bearer {key}"]
    if etag is not None:
        lines.append(f"If-None-Match: {etag}")
    return "\r\n".join([*lines, "", ""]).encode()


def compare(args: argparse.Namespace) -> None:
    """Measure, and print a table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        key, job_id, env = prepare(folder)
        ours = stack.enter_context(server("-m", "api", env=env))
        etag, body = one_answer(ours.port, request_for(job_id, key))
        copy = folder / "body.json"
        copy.write_bytes(body)
        bare = stack.enter_context(server("-m", "benchmarks.polling", "--bare", str(copy), "--etag", etag, env=env))
        one_answer(bare.port, request_for(job_id, key))
        print(f"{len(body)} bytes, {args.connections} connections, {args.rounds} rounds of {args.seconds:g} s")
        print(f"{'':4}{'bare/s':>8}{'ours/s':>8}{'ratio':>7}{'bare µs':>9}{'ours µs':>9}{'ratio':>7}")
        for status, request in ((b"200", request_for(job_id, key)), (b"304", request_for(job_id, key, etag))):
            for found in (bare, ours):
                found.rates, found.micros = [], []
            for turn in range(args.rounds):
                for found in (bare, ours) if turn % 2 else (ours, bare):
                    found.measure(request, status, args)
            print(status.decode() + row(bare, ours))


def row(bare: Running, ours: Running) -> str:
    """Medians and their ratios."""
    theirs, mine = statistics.median(bare.rates), statistics.median(ours.rates)
    their_cpu, my_cpu = statistics.median(bare.micros), statistics.median(ours.micros)
    return f"{theirs:9.0f}{mine:8.0f}{mine / theirs:7.2f}{their_cpu:9.0f}{my_cpu:9.0f}{their_cpu / my_cpu:7.2f}"


def main() -> None:
    """Compare; or, for the processes this starts, serve or send."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--bare", help=argparse.SUPPRESS)
    parser.add_argument("--etag", help=argparse.SUPPRESS)
    parser.add_argument("--fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--load", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        serve_bare(args.fd, Path(args.bare), args.etag)
    elif args.load:
        order = json.loads(args.load)
        request, status = order["request"].encode(), order["status"].encode()
        print(json.dumps(uvloop.run(load(order["port"], request, status, args.seconds, args.connections))))
    else:
        compare(args)


if __name__ == "__main__":
    main()
