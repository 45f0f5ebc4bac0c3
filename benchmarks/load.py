"""Many who look at once: pollers and event streams against one API process while two jobs train.

    python -m benchmarks.load [--pollers 500] [--streams 50] [--every 2] [--rounds 3]

Each poller keeps a connection and asks for one of the two jobs every so many seconds, with the ETag it knows; each
stream follows a job's events until it ends. Two jobs on two workers run with them and without them in turns. Printed
are answers, errors, the time to a whole answer (median, 99th percentile, greatest), and by how much longer
the jobs took. Senders are a process of their own, on the same processors as everything else.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.chaos.house import House, house

ROOT = Path(__file__).resolve().parents[1]
JOB: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [256, 256]}, "epochs": 20}},
    "dataset": {"builtin": "digits"},
    "student": {"name": "cnn", "channels": [8, 16]},
    "training": {"epochs": 150},
}


@dataclass
class Seen:
    """What the senders met."""

    seconds: list[float] = field(default_factory=list)
    """From each request to its answer."""
    events: int = 0
    errors: list[str] = field(default_factory=list)


async def poll(host: str, port: int, path: str, key: str, every: float, until: float, start: float, seen: Seen) -> None:
    """Ask again and again on one connection, as a dashboard does."""
    await asyncio.sleep(start)
    reader, writer = await asyncio.open_connection(host, port)
    etag = ""
    while time.monotonic() < until:
        asked = time.perf_counter()
        head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n"
        writer.write((head + (f"If-None-Match: {etag}\r\n" if etag else "") + "\r\n").encode())
        status, headers = await _answer(reader)
        seen.seconds.append(time.perf_counter() - asked)
        if status not in (200, 304):
            seen.errors.append(f"a poll was answered {status}")
        etag = headers.get("etag", etag)
        await asyncio.sleep(every)
    writer.close()


async def follow(host: str, port: int, path: str, key: str, until: float, seen: Seen) -> None:
    """Read a job's events as they come, until the stream ends or the time is over."""
    reader, writer = await asyncio.open_connection(host, port)
    head = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nAccept: text/event-stream\r\n\r\n"
    writer.write(head.encode())
    if b" 200 " not in (line := await reader.readline()):
        seen.errors.append(f"a stream was answered {line.decode(errors='replace').strip()}")
    while (left := until - time.monotonic()) > 0:
        try:
            line = await asyncio.wait_for(reader.readline(), left)
        except TimeoutError:
            break
        if not line:
            break
        seen.events += line.startswith(b"data:")
    writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str]]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
    if length := int(headers.get("content-length", 0)):
        await reader.readexactly(length)
    return int(head[0].split()[1]), headers


async def send(order: dict[str, Any]) -> Seen:
    """All pollers and streams at once."""
    seen, until = Seen(), time.monotonic() + order["seconds"]
    host, port = order["host"], order["port"]
    work = []
    for number in range(order["pollers"]):
        path, start = f"/v1/jobs/{order['jobs'][number % 2]}", order["every"] * number / order["pollers"]
        work.append(poll(host, port, path, order["key"], order["every"], until, start, seen))
    for number in range(order["streams"]):
        path = f"/v1/jobs/{order['jobs'][number % 2]}/events"
        work.append(follow(host, port, path, order["key"], until, seen))
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            seen.errors.append(f"{type(result).__name__}: {result}")
    return seen


def turn(service: House, given: argparse.Namespace, *, loaded: bool) -> tuple[float, Seen | None]:
    """Seconds two jobs took side by side, and what those who looked on met."""
    jobs = [service.client.jobs.create(JOB).id for _ in range(2)]
    sender = _start_sender(service, jobs, given) if loaded else None
    seconds = []
    for job_id in jobs:
        job = service.client.jobs.wait(job_id)
        assert job.status == "succeeded", job.error
        assert job.started_at is not None
        assert job.finished_at is not None
        seconds.append((job.finished_at - job.started_at).total_seconds())
    if sender is None:
        return statistics.mean(seconds), None
    found = json.loads(sender.communicate()[0])
    return statistics.mean(seconds), Seen(**found)


def _start_sender(service: House, jobs: list[str], given: argparse.Namespace) -> "subprocess.Popen[str]":
    where = urlsplit(service.url)
    order = {
        "host": where.hostname,
        "port": where.port,
        "key": service.key,
        "jobs": jobs,
        "seconds": given.seconds,
        "pollers": given.pollers,
        "streams": given.streams,
        "every": given.every,
    }
    command = [sys.executable, "-m", "benchmarks.load", "--send", json.dumps(order)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def main() -> None:
    """Measure and print."""
    given = _arguments()
    if given.send is not None:
        print(json.dumps(vars(asyncio.run(send(json.loads(given.send))))))
        return
    alone, beside, all_seen = [], [], Seen()
    with house("sqlite") as (service, _):
        turn(service, given, loaded=False)  # the dataset is made and everything warm
        for _ in range(given.rounds):
            alone.append(turn(service, given, loaded=False)[0])
            seconds, seen = turn(service, given, loaded=True)
            assert seen is not None
            beside.append(seconds)
            all_seen.seconds += seen.seconds
            all_seen.events += seen.events
            all_seen.errors += seen.errors
    _print(given, alone, beside, all_seen)
    raise SystemExit(1 if all_seen.errors else 0)


def _print(given: argparse.Namespace, alone: list[float], beside: list[float], seen: Seen) -> None:
    spread = statistics.quantiles(seen.seconds, n=100)
    print(
        f"{given.pollers} pollers every {given.every:g} s and {given.streams} streams: {len(seen.seconds):,} answers, "
        f"{seen.events:,} events, {len(seen.errors)} errors"
    )
    median, longest = statistics.median(seen.seconds), max(seen.seconds)
    print(f"answers: median {median * 1e3:.1f} ms, p99 {spread[98] * 1e3:.1f} ms, greatest {longest * 1e3:.1f} ms")
    before, after = statistics.median(alone), statistics.median(beside)
    print(f"jobs: {before:.2f} s alone, {after:.2f} s beside them: {after / before:.2f} (median of {given.rounds})")
    for error in sorted(set(seen.errors))[:5]:
        print(f"    {error}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pollers", type=int, default=500)
    parser.add_argument("--streams", type=int, default=50)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two polls of a poller")
    parser.add_argument("--seconds", type=float, default=12.0, help="how long they look on in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--send", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
