"""The faults: each hurts a running service so many times, and says how its jobs ended."""

import contextlib
import random
import signal
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import redis
from sqlalchemy import make_url, select

from benchmarks.chaos.house import LEASE_SECONDS, House, Postgres, until
from benchmarks.chaos.watch import Verdict, Watch, judge, statuses
from core.broker import TASK, make_celery
from core.settings import Settings
from models.model import ModelRow
from stillhouse.client import Client
from stillhouse.spec.errors import StillhouseError
from stillhouse.spec.states import FINAL

JOB: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [256, 256], "dropout": 0.3}, "epochs": 30}},
    "dataset": {"builtin": "digits"},
    "student": {"name": "cnn", "channels": [8, 16]},
    "temperature": 4,
    "training": {"epochs": 40, "batch_size": 64},
    "finetune": {"epochs": 10},
}
"""Every phase of a job, in some seconds."""
TINY: dict[str, Any] = {
    "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [16]}, "epochs": 1}},
    "dataset": {"builtin": "digits"},
    "student": {"name": "mlp", "hidden": [8]},
    "training": {"epochs": 1},
    "evaluation": {"baseline": False},
    "export": {"onnx": False},
}
_BLOWS_A_JOB = 5
_END_SECONDS = 300.0

Blow = Callable[[House, int, random.Random], None]
"""Hurts the worker whose trainer has this process id."""


def undisturbed(house: House) -> str:
    """Digest of the student when nothing happens."""
    job = house.client.jobs.wait(house.client.jobs.create(JOB).id)
    assert job.status == "succeeded", job.error
    return _weights(house, job.id)


def kills(house: House, times: int, dice: random.Random, verdict: Verdict) -> None:
    """SIGKILL to trainer, supervisor or whole worker at random moments."""
    _blows(house, times, dice, verdict, _kill)


def freezes(house: House, times: int, dice: random.Random, verdict: Verdict) -> None:
    """SIGSTOP to a worker and all it started until its lease is over, then SIGCONT."""
    _blows(house, times, dice, verdict, _freeze)


def terminations(house: House, times: int, dice: random.Random, verdict: Verdict) -> None:
    """SIGTERM to a worker, as an upgrade does."""
    _blows(house, times, dice, verdict, _terminate)


def broker_kills(house: House, times: int, dice: random.Random, verdict: Verdict) -> None:
    """The broker is killed, is away for a while, and comes back empty."""

    def blow() -> None:
        house.broker.kill()
        time.sleep(dice.uniform(0, 2))
        house.broker.start()

    _around(house, times, dice, verdict, blow)


def broker_flushes(house: House, times: int, dice: random.Random, verdict: Verdict) -> None:
    """Everything in the broker is lost."""

    def blow() -> None:
        with redis.Redis(port=house.broker_port) as connection:
            connection.flushall()

    _around(house, times, dice, verdict, blow)


def database_restarts(house: House, times: int, dice: random.Random, verdict: Verdict, server: Postgres | None) -> None:
    """PostgreSQL is killed like in a power cut and started again; SQLite is locked by somebody else for as long."""

    def blow() -> None:
        away = dice.uniform(0.2, 1.5 * LEASE_SECONDS)
        if server is not None:
            server.kill()
            time.sleep(away)
            server.start()
            return
        with contextlib.closing(sqlite3.connect(str(make_url(house.database_url).database))) as connection:
            until(lambda: _locked(connection), "the database can be locked")
            time.sleep(away)
            connection.rollback()

    _around(house, times, dice, verdict, blow)


def api_kills(house: House, times: int, dice: random.Random, verdict: Verdict) -> None:
    """The API is killed while files go up and come down and jobs are posted."""
    done = house.client.jobs.wait(house.client.jobs.create(TINY).id)
    finished, asked = threading.Event(), set[str]()
    tables = house.folder / "tables"
    tables.mkdir(exist_ok=True)

    def work(number: int) -> list[str]:
        """One user: upload, post, download, each again until it is done."""
        client, made, turn = Client(house.url, house.key), [], 0
        while not finished.is_set():
            turn += 1
            path = _table(tables / f"{number}-{turn}.csv", seed=1000 * number + turn)
            _stubbornly(lambda path=path: client.datasets.add(path, label="y"))
            key = f"{number}-{turn}"
            asked.add(key)
            made.append(_stubbornly(lambda key=key: client.jobs.create(TINY, idempotency_key=key)).id)
            _stubbornly(lambda path=path: client.jobs.download(done, path.with_suffix("")))
        return made

    with ThreadPoolExecutor(4) as pool:
        users = [pool.submit(work, number) for number in range(4)]
        for _ in range(times):
            time.sleep(dice.uniform(0.3, 1.5))
            house.api.kill()
            house.api.start()
            verdict.tried += 1
        time.sleep(2)
        finished.set()
        made = [job_id for user in users for job_id in user.result()]
    if len(set(made)) != len(asked):
        verdict.wrong.append(f"{len(asked)} keys made {len(set(made))} jobs")
    _finish(house, made, verdict, weights=None)
    _nothing_left(house, verdict)


def full_disk(house: House, times: int, dice: random.Random, verdict: Verdict, storage: Path) -> None:
    """The storage is full for a while."""

    def blow() -> None:
        filler = storage / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(b"\0" * 65536)
                file.flush()
        time.sleep(dice.uniform(1, 6))
        filler.unlink()

    _around(house, times, dice, verdict, blow)


def out_of_memory(house: House, times: int, dice: random.Random, verdict: Verdict) -> None:
    """The trainer gets no more memory. Its job ends `out_of_memory`, or goes on elsewhere if the trainer crashed."""
    made = []
    for _ in range(times):
        job = house.client.jobs.create(JOB)
        made.append(job.id)
        pid = until(lambda job=job: _trainer_of(house, job.id), "a trainer works")
        time.sleep(dice.uniform(0.1, 1.5))
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            process.rlimit(psutil.RLIMIT_AS, (process.memory_info().vms, -1))
            verdict.tried += 1
        ended = house.client.jobs.wait(job.id, timeout=_END_SECONDS)
        told = ended.error is not None and ended.error.code == "out_of_memory"
        verdict.jobs += 1
        if told or ended.status == "succeeded":
            verdict.right += 1
        else:
            verdict.wrong.append(f"{job.id} is {ended.status}: {ended.error}")
        verdict.notes.append("told" if told else f"{ended.status} after {ended.attempt} attempts")


def submitters(house: House, times: int, dice: random.Random, verdict: Verdict) -> None:
    """Many post at once: half of them five to a key, the others each for itself."""
    shared = [uuid4().hex for _ in range(max(1, times // 10))]
    keys = [shared[number % len(shared)] if number < times // 2 else uuid4().hex for number in range(times)]
    dice.shuffle(keys)
    gate = threading.Barrier(times)

    def post(key: str) -> str:
        client = Client(house.url, house.key)
        gate.wait()
        return _stubbornly(lambda: client.jobs.create(TINY, idempotency_key=key)).id

    before = sum(statuses(house).values())
    with ThreadPoolExecutor(times) as pool:
        made = list(pool.map(post, keys))
    verdict.tried = times
    by_key: dict[str, set[str]] = {}
    for key, job_id in zip(keys, made, strict=True):
        by_key.setdefault(key, set()).add(job_id)
    if doubled := [key for key, ids in by_key.items() if len(ids) > 1]:
        verdict.wrong.append(f"{len(doubled)} keys made more than one job")
    if (rows := sum(statuses(house).values()) - before) != len(by_key):
        verdict.wrong.append(f"{len(by_key)} keys made {rows} rows")
    _finish(house, sorted(set(made)), verdict, weights=None)


def messages(house: House, times: int, dice: random.Random, verdict: Verdict) -> None:
    """Doorbells are doubled, reordered, of jobs that are over or never were, and not what they should be."""
    weights = undisturbed(house)
    settings = Settings(broker_url=f"redis://127.0.0.1:{house.broker_port}/0")
    app = make_celery(settings)
    made = [house.client.jobs.create(JOB).id for _ in range(4)]
    for _ in range(times):
        arguments: list[Any] = dice.choice([[dice.choice(made)], [dice.choice(made)], [f"job_{uuid4().hex}"], [7], []])
        app.send_task(TASK, args=arguments, queue=settings.queue, ignore_result=True)
        verdict.tried += 1
        time.sleep(dice.uniform(0, 0.05))
    app.close()
    _finish(house, made, verdict, weights=weights)


def _blows(house: House, times: int, dice: random.Random, verdict: Verdict, blow: Blow) -> None:
    """Keep two jobs going, and hurt the worker of one of them again and again, each job a few times."""
    weights = undisturbed(house)
    suffered: dict[str, int] = {}
    with Watch(house) as watch:
        while verdict.tried < times:
            while sum(1 for job_id in suffered if not _is_final(house, job_id)) < len(house.workers):
                suffered[house.client.jobs.create(JOB).id] = 0
            time.sleep(dice.uniform(0.05, 1.5))
            at_work = [
                (pid, job_id)
                for pid, job_id in house.trainers().items()
                if suffered.get(job_id, _BLOWS_A_JOB) < _BLOWS_A_JOB
            ]
            if at_work:
                pid, job_id = dice.choice(at_work)
                suffered[job_id] += 1
                verdict.tried += 1
                blow(house, pid, dice)
        _finish(house, list(suffered), verdict, weights=weights)
    verdict.untrue_seconds = watch.longest
    _nothing_left(house, verdict)


def _kill(house: House, pid: int, dice: random.Random) -> None:
    whom = dice.choice(["trainer", "supervisor", "worker"])
    with contextlib.suppress(psutil.NoSuchProcess):
        if whom == "trainer":
            psutil.Process(pid).kill()
        elif whom == "supervisor" and (supervisor := house.supervisor_of(pid)) is not None:
            supervisor.kill()
        elif (worker := house.worker_of(pid)) is not None:
            worker.kill()
            worker.start()


def _freeze(house: House, pid: int, dice: random.Random) -> None:
    worker = house.worker_of(pid)
    if worker is None:
        return
    frozen = worker.family
    for member in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.suspend()
    time.sleep(LEASE_SECONDS + dice.uniform(0.5, 2.5))
    for member in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.resume()


def _terminate(house: House, pid: int, dice: random.Random) -> None:
    worker = house.worker_of(pid)
    if worker is not None and worker.process is not None:
        worker.process.send_signal(signal.SIGTERM)
        try:
            worker.process.wait(30)
        except subprocess.TimeoutExpired:
            worker.kill()
        worker.start()


def _around(house: House, times: int, dice: random.Random, verdict: Verdict, blow: Callable[[], None]) -> None:
    """Hurt a part all jobs share, with jobs posted before and during it."""
    weights, made = undisturbed(house), []
    with Watch(house) as watch:
        for _ in range(times):
            if sum(1 for job_id in made if not _is_final(house, job_id)) < len(house.workers):
                made.append(_stubbornly(lambda: house.client.jobs.create(JOB)).id)
            time.sleep(dice.uniform(0.2, 3))
            blow()
            verdict.tried += 1
        _finish(house, made, verdict, weights=weights)
    verdict.untrue_seconds = watch.longest
    _nothing_left(house, verdict)


def _finish(house: House, made: list[str], verdict: Verdict, *, weights: str | None) -> None:
    """Wait for the ends of all, and judge them."""
    deadline = time.monotonic() + _END_SECONDS + len(made)
    for job_id in made:
        with contextlib.suppress(TimeoutError):
            until(lambda job_id=job_id: _is_final(house, job_id), "it ends", seconds=deadline - time.monotonic())
    judge(house, made, verdict, weights=weights)


def _nothing_left(house: House, verdict: Verdict) -> None:
    """No folder of an attempt or of an upload stays when all is over."""
    places = [house.work_dir / "attempts", house.work_dir / "uploads"]

    def clean() -> bool:
        return not any(list(place.iterdir()) for place in places if place.is_dir())

    try:
        until(clean, "working folders are removed", seconds=30)
    except TimeoutError:
        left = [entry.name for place in places if place.is_dir() for entry in place.iterdir()]
        verdict.wrong.append(f"left behind: {', '.join(left[:5])}")


def _is_final(house: House, job_id: str) -> bool:
    try:
        return house.client.jobs.get(job_id).status in FINAL
    except StillhouseError:
        return False


def _trainer_of(house: House, job_id: str) -> int | None:
    return next((pid for pid, working_on in house.trainers().items() if working_on == job_id), None)


def _weights(house: House, job_id: str) -> str:
    database = house.database()
    try:
        with database.read() as session:
            query = select(ModelRow.sha256).where(ModelRow.job_id == job_id, ModelRow.role == "student")
            return session.scalars(query).one()
    finally:
        database.close()


def _stubbornly(act: Callable[[], Any]) -> Any:
    """What `act` returns, tried again like a user would while the service is away."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return act()
        except StillhouseError as error:
            if time.monotonic() > deadline or (error.status is not None and 400 <= error.status < 500):
                raise
            time.sleep(0.1)


def _locked(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError:
        return False
    return True


def _table(path: Path, *, seed: int) -> Path:
    """A CSV file no other is like."""
    stream = random.Random(seed)
    lines = [f"{stream.random():.6f},{stream.random():.6f},{'ab'[row % 2]}\n" for row in range(2000)]
    path.write_text("a,b,y\n" + "".join(lines))
    return path
