"""`stillhouse watch`: follow a job to its end, as a moving picture on a terminal, as lines elsewhere."""

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from stillhouse.cli import exits, session
from stillhouse.cli.arguments import JobId, job_of
from stillhouse.cli.exits import EXIT_CODES_HELP, ExitCode
from stillhouse.cli.render import failure_panel, report_view, status
from stillhouse.cli.session import AsJson, Session
from stillhouse.cli.text import clean, duration, percent
from stillhouse.client import Client
from stillhouse.spec.errors import StillhouseError
from stillhouse.spec.states import JobStatus, Phase
from stillhouse.spec.views import Job, JobProgress

_BAR_WIDTH = 30
_ORDER: dict[str, int] = {phase: index for index, phase in enumerate(Phase)}
# Without a terminal, a line per this share of a phase: enough to see that it moves.
_LINES_PER_PHASE = 10


def watch(context: typer.Context, job: JobId, as_json: AsJson = False) -> None:
    """Follow a job to its end; the exit code tells how it ended."""
    speak = session.of(context)
    with speak.client() as client:
        raise typer.Exit(follow_and_point_on(speak, client, job_of(client, job)))


watch.__doc__ = f"{watch.__doc__}\n\n{EXIT_CODES_HELP}"


def follow(speak: Session, client: Client, job: Job) -> ExitCode:
    """Show the job until it is over, then its outcome. Ctrl-C leaves it running."""
    if job.status is JobStatus.QUEUED:
        _warn_without_workers(speak, client)
    picture = _Picture(client, job)
    lines = _Lines(speak, picture)
    live: AbstractContextManager[object] = nullcontext()
    if speak.live:
        live = Live(picture, console=speak.out, refresh_per_second=4, transient=True)

    def changed(now: Job) -> None:
        picture.update(now)
        if not speak.live:
            lines.update(now)

    try:
        with live:
            job = client.jobs.wait(job, on_change=changed)
    except KeyboardInterrupt:
        speak.note(
            f"No longer watching; the job goes on.\n  stillhouse watch {job.id}\n  stillhouse jobs cancel {job.id}"
        )
        return ExitCode.INTERRUPTED
    speak.answer(job, lambda: _outcome(job))
    return exits.of_job(job)


def follow_and_point_on(speak: Session, client: Client, job: Job) -> ExitCode:
    """`follow`, and how to get at the student when there is one."""
    ended = follow(speak, client, job)
    if ended in (ExitCode.OK, ExitCode.BELOW_TARGET):
        speak.note(f"Fetch the student:  stillhouse pull {job.id}")
    return ended


class _Picture:
    """What is known of a job, drawn anew four times a second."""

    def __init__(self, client: Client, job: Job) -> None:
        self._client = client
        self._job = job
        self._seen = time.monotonic()
        self._latest: dict[str, float] = {}

    def update(self, job: Job) -> None:
        """Take the job's new state, and the newest metrics."""
        if job.started_at is None or job.attempt != self._job.attempt:
            self._latest = {}
        self._job, self._seen = job, time.monotonic()
        if job.started_at is not None and job.phase is not None:
            self._read_metrics()

    def _read_metrics(self) -> None:
        try:
            series = self._client.jobs.metrics(self._job, max_points=2).series
        except StillhouseError:
            return  # they are decoration: the wait itself reports an outage
        self._latest = {one.name: one.points[-1][1] for one in series if one.points}

    def __rich__(self) -> RenderableType:
        job = self._job
        head = Text(job.id, style="bold").append(f"  {clean(job.name)}" if job.name else "", style="not bold")
        head.append("  ").append_text(status(job))
        if job.attempt > 1:
            head.append(f"  attempt {job.attempt}", style="yellow")
        if job.progress is None or job.phase is None:
            return Group(head, Text(clean(_standing(job)), style="dim"))
        return Group(head, self._bar(job.progress), *self._series())

    def _bar(self, progress: JobProgress) -> RenderableType:
        row = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=max(1, progress.steps), completed=progress.step, width=_BAR_WIDTH)
        row.add_row(_words(progress.phase), bar, _position(progress), self._eta(progress))
        return row

    def _eta(self, progress: JobProgress) -> str:
        if progress.eta_seconds is None:
            return ""
        left = progress.eta_seconds - (time.monotonic() - self._seen)
        return f"{duration(left)} left"

    def numbers(self) -> dict[str, list[str]]:
        """Phase → what was last measured in it, losses first; phases in the order they run."""
        phases: dict[str, dict[str, float]] = {}
        for name, value in sorted(self._latest.items(), key=lambda item: _ORDER.get(item[0].partition("/")[0], 0)):
            phase, _, what = name.partition("/")
            phases.setdefault(phase, {})[what] = value
        return {
            phase: [_number(what, found[what]) for what in _worth_showing(found)] for phase, found in phases.items()
        }

    def _series(self) -> list[Text]:
        return [
            Text(clean(f"{_words(phase)}: {'  '.join(found)}"), style="" if phase == self._job.phase else "dim")
            for phase, found in self.numbers().items()
        ]


class _Lines:
    """The same as lines, for logs and pipes: one when something begins or its place moves, and ten on the way."""

    def __init__(self, speak: Session, picture: _Picture) -> None:
        self._speak, self._picture = speak, picture
        self._last: tuple[object, ...] = ()

    def update(self, job: Job) -> None:
        """Print a line when status, phase, attempt or tenth of the phase is another than before."""
        progress = job.progress if job.status is JobStatus.RUNNING else None
        tenth = 0 if progress is None else _LINES_PER_PHASE * progress.step // max(1, progress.steps)
        now = (job.status, job.attempt, job.queue, None if progress is None else progress.phase, tenth)
        between_phases = progress is None and self._last[:3] == now[:3]
        if now == self._last or job.status.final or between_phases:
            return
        self._last = now
        if progress is None:
            self._speak.say(f"{job.status}: {_standing(job)}")
            return
        numbers = self._picture.numbers().get(progress.phase, [])
        self._speak.say("  ".join([_words(progress.phase), _position(progress), *numbers]))


def _warn_without_workers(speak: Session, client: Client) -> None:
    try:
        ready = client.ready()
    except StillhouseError:
        return
    if not ready.workers:
        speak.note("No worker is running: the job waits until one is. `stillhouse up` starts one.")


def _standing(job: Job) -> str:
    """How it stands with a job that does not train at the moment."""
    return job.status_text if job.queue is None else f"position {job.queue.position}. {job.queue.detail}"


def _outcome(job: Job) -> RenderableType:
    head = Text(job.id, style="bold").append("  ").append_text(status(job))
    if job.error is not None:
        return Group(head, failure_panel(job.error))
    if job.report is None:
        return head
    return Group(head, Text(), report_view(job.report))


def _worth_showing(found: Iterable[str]) -> list[str]:
    """Total loss, its parts when it has several, accuracy. The other series are for charts."""
    parts = sorted(what for what in found if what.startswith("loss_"))
    wanted = ["loss", *(parts if len(parts) > 1 else []), "validation_accuracy"]
    return [what for what in wanted if what in set(found)]


def _position(progress: JobProgress) -> str:
    share = 100 * progress.step // max(1, progress.steps)
    return f"{share:3d} %" + (f"  epoch {progress.epoch}/{progress.epochs}" if progress.epochs > 1 else "")


def _number(what: str, value: float) -> str:
    words = _words(what)
    return f"{words} {percent(value)}" if what.endswith(("accuracy", "agreement")) else f"{words} {value:.4g}"


def _words(name: str) -> str:
    return name.replace("_", " ")
