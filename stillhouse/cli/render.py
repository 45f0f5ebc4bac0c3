"""Pictures of the service's answers."""

from collections.abc import Callable, Iterable, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stillhouse.cli.text import age, clean, duration, milliseconds, percent, size
from stillhouse.spec.audit import AuditEntry
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.keys import Key
from stillhouse.spec.report import ChosenStudent, Measured, Report
from stillhouse.spec.secret import Secret
from stillhouse.spec.states import JobStatus
from stillhouse.spec.students import Shrink, Student, WithinBudget, architecture_of, in_words
from stillhouse.spec.teacher import Teacher
from stillhouse.spec.teachers import ForeignConfig
from stillhouse.spec.views import Catalogue, Checkpoint, Dataset, Job, JobError, KeptOutputs, Model, ValidatedJob
from stillhouse.spec.webhook import WebhookDelivery

STATUS_STYLE = {
    JobStatus.QUEUED: "cyan",
    JobStatus.RUNNING: "blue",
    JobStatus.PAUSING: "yellow",
    JobStatus.PAUSED: "yellow",
    JobStatus.CANCELLING: "yellow",
    JobStatus.SUCCEEDED: "green",
    JobStatus.FAILED: "red",
    JobStatus.CANCELLED: "yellow",
}
ROLES = {"teacher": "teacher", "student": "distilled student", "baseline": "same, no teacher"}


def status(job: Job) -> Text:
    """The status in its colour, with the position in the queue or the verdict when there is one."""
    verdict = f", {job.verdict.replace('_', ' ')}" if job.verdict else ""
    style = "yellow" if job.verdict == "below_target" else STATUS_STYLE[job.status]
    place = f" #{job.queue.position}" if job.queue else ""
    return Text(f"{job.status}{place}{verdict}", style=f"bold {style}")


def report_table(report: Report) -> Table:
    """The measured table: a column per model, so that three models fit into 80 characters."""
    batches = sorted({timing.batch for model in report.models for timing in model.latency})
    table = _table("", *(ROLES.get(model.role, model.role) for model in report.models), right=True)
    rows: tuple[tuple[str, Callable[[Measured], str]], ...] = (
        ("architecture", lambda m: clean(m.architecture)),
        ("accuracy", lambda m: percent(m.accuracy)),
        ("  95 % interval", lambda m: f"{100 * m.accuracy_interval[0]:.1f} – {100 * m.accuracy_interval[1]:.1f} %"),
        ("  wrong of rows", lambda m: f"{m.errors} of {m.rows}"),
        ("agreement with teacher", lambda m: percent(m.agreement)),
        ("parameters", lambda m: f"{m.parameters:,}"),
        ("file size", lambda m: size(m.size_bytes)),
    )
    for title, cell in rows:
        table.add_row(title, *(cell(model) for model in report.models))
    for batch in batches:
        title = "latency, 1 row" if batch == 1 else f"latency, {batch} rows"
        table.add_row(title, *(_latency(model, batch) for model in report.models))
    return table


def report_view(report: Report) -> RenderableType:
    """The table, what follows from it, and what to be careful about."""
    parts: list[RenderableType] = [report_table(report)]
    if report.chosen_student is not None:
        parts.append(Text(clean(_chosen(report.chosen_student))))
    if report.gap_recovered is not None:
        parts.append(Text(_gap(report.gap_recovered)))
    for target in report.targets:
        sign, style = ("✓", "green") if target.met else ("✗", "red")
        wanted = f"{target.name.replace('_', ' ')} {target.wanted:g}: measured {target.measured:.4g}"
        parts.append(Text(clean(f"{sign} {wanted}"), style=style))
    parts += [Text(clean(f"! {warning}"), style="yellow") for warning in report.warnings]
    return Group(*parts)


def failure_panel(error: JobError) -> Panel:
    """The red box: code, sentence, hint."""
    body = Text(clean(error.detail))
    body.append(f"\nhint: {clean(error.hint)}", style="yellow")
    return Panel(body, title=Text(f"failed: {clean(error.code)}"), title_align="left", border_style="red")


def trashed(thing: Job | Dataset | Model) -> Text:
    """Where a deleted or restored thing is now."""
    if thing.purge_at is None:
        return Text(f"{thing.id} is not in the trash.")
    until = f"{thing.purge_at:%Y-%m-%d %H:%M} UTC"
    return Text(f"{thing.id} is in the trash; until {until} `{thing.object}s restore` takes it out again.")


def job_view(job: Job) -> RenderableType:
    """Everything about one job."""
    facts = Table.grid(padding=(0, 2))
    rows: list[tuple[str, RenderableType]] = [
        ("job", Text(job.id, style="bold")),
        ("name", clean(job.name or "–")),
        ("status", status(job) + Text(f"  {clean(job.status_text)}", style="not bold default")),
        ("models", _networks(job)),
        ("dataset", job.dataset_id),
        ("created", f"{job.created_at:%Y-%m-%d %H:%M:%S} UTC ({age(job.created_at)})"),
    ]
    if job.queue is not None:
        rows.append(("waits", f"at position {job.queue.position}: {clean(job.queue.detail)}"))
    if job.started_at is not None:
        ended = f", took {duration((job.finished_at - job.started_at).total_seconds())}" if job.finished_at else ""
        rows.append(("started", f"{job.started_at:%Y-%m-%d %H:%M:%S} UTC, attempt {job.attempt}{ended}"))
    if job.deleted_at is not None:
        rows.append(("deleted", trashed(job)))
    if job.labels:
        rows.append(("labels", clean(" ".join(f"{key}={value}" for key, value in job.labels.items()))))
    rows += [(role, id) for role, id in (("student", job.student_model_id), ("teacher", job.teacher_model_id)) if id]
    for name, value in rows:
        facts.add_row(Text(name, style="dim"), value)
    parts: list[RenderableType] = [facts]
    parts += [Text(clean(f"! {c.reason}: {c.message}"), style="yellow") for c in job.conditions]
    if job.report is not None:
        parts += [Text(), report_view(job.report)]
    if job.error is not None:
        parts.append(failure_panel(job.error))
    return Group(*parts)


def jobs_table(jobs: Iterable[Job]) -> Table:
    """A line per job."""
    table = _table("job", "status", "name", "teacher → student", "accuracy", "created")
    for job in jobs:
        student = None if job.report is None else job.report.of("student")
        accuracy = "" if student is None else percent(student.accuracy)
        table.add_row(job.id, status(job), clean(job.name or ""), _networks(job), accuracy, age(job.created_at))
    return table


def datasets_table(datasets: Iterable[Dataset]) -> Table:
    """A line per dataset."""
    table = _table("dataset", "name", "format", "task", "classes", "rows", "size", "created")
    for dataset in datasets:
        facts = dataset.facts
        table.add_row(
            dataset.id,
            clean(dataset.name),
            dataset.format,
            facts.task,
            str(len(facts.classes)),
            f"{sum(facts.rows.values()):,}",
            size(dataset.bytes),
            age(dataset.created_at),
        )
    return table


def dataset_view(dataset: Dataset) -> RenderableType:
    """One dataset with its data report."""
    facts, report = dataset.facts, dataset.report
    head = Table.grid(padding=(0, 2))
    shape = "×".join(map(str, facts.shape)) + (" (channels, height, width)" if len(facts.shape) == 3 else " inputs")
    rows = ", ".join(f"{split} {count:,}" for split, count in facts.rows.items())
    for name, value in (
        ("dataset", dataset.id),
        ("name", clean(dataset.name)),
        ("task", f"{facts.task}, {len(facts.classes)} classes"),
        ("one row", shape),
        ("rows", rows + (f"; {facts.unlabelled:,} of train without a label" if facts.unlabelled else "")),
        ("kept", f"{report.rows_kept:,} of {report.rows_read:,}, {report.rows_dropped:,} dropped"),
        ("duplicates", f"{report.duplicates:,}, of them across splits {report.duplicates_across_splits:,}"),
        ("stored", f"{size(dataset.bytes)}, sha256 {dataset.sha256}"),
    ):
        head.add_row(Text(name, style="dim"), value)
    balance = _table("class", *report.class_counts, right=True)
    for name in facts.classes[:20]:
        balance.add_row(clean(name), *(f"{counts.get(name, 0):,}" for counts in report.class_counts.values()))
    parts: list[RenderableType] = [head, Text(), balance]
    if len(facts.classes) > 20:
        parts.append(Text(f"… and {len(facts.classes) - 20} more classes"))
    parts += [Text(clean(f"! {note}"), style="yellow") for note in report.notes]
    parts += [Text(clean(f"dropped {row.row}: {row.reason}"), style="dim") for row in report.dropped[:10]]
    if report.rows_dropped > 10:
        parts.append(Text(f"… {report.rows_dropped - min(10, len(report.dropped))} more were dropped", style="dim"))
    return Group(*parts)


def models_table(models: Iterable[Model]) -> Table:
    """A line per model."""
    table = _table("model", "role", "name", "network", "parameters", "accuracy", "created")
    for model in models:
        table.add_row(
            model.id,
            model.role,
            clean(model.name),
            clean(model.network),
            f"{model.parameters:,}",
            percent(model.accuracy),
            age(model.created_at),
        )
    return table


def outputs_table(outputs: Iterable[KeptOutputs]) -> Table:
    """A line per kept outputs of a teacher."""
    table = _table("outputs", "teacher", "dataset", "part", "views", "top k", "rows", "size", "hits", "last used")
    for kept in outputs:
        table.add_row(
            kept.id,
            clean(kept.teacher),
            kept.dataset_id,
            kept.part.replace("_", " "),
            str(kept.views),
            "all" if kept.top_k is None else str(kept.top_k),
            f"{kept.rows:,}",
            size(kept.bytes),
            str(kept.hits),
            age(kept.last_used_at),
        )
    return table


def keys_table(keys: Iterable[Key]) -> Table:
    """A line per key."""
    table = _table("key", "name", "begins", "scope", "last used", "ends")
    for key in keys:
        ended = "revoked" if key.revoked_at else "" if key.expires_at is None else f"{key.expires_at:%Y-%m-%d %H:%M}"
        used = "never" if key.last_used_at is None else age(key.last_used_at)
        table.add_row(key.id, clean(key.name), key.start + "…", key.scope, used, ended)
    return table


def secrets_table(secrets: Iterable[Secret]) -> Table:
    """A line per secret."""
    table = _table("secret", "created", "set", "last used")
    for secret in secrets:
        used = "never" if secret.last_used_at is None else age(secret.last_used_at)
        table.add_row(secret.name, age(secret.created_at), age(secret.updated_at), used)
    return table


def audit_table(entries: Iterable[AuditEntry]) -> Table:
    """A line per entry of the audit log."""
    table = _table("at", "key", "action", "target", "from", "outcome")
    for entry in entries:
        table.add_row(
            f"{entry.at:%Y-%m-%d %H:%M:%S}",
            entry.key_id or "operator",
            clean(entry.action),
            clean(entry.target or "–"),
            clean(entry.address or "–"),
            clean(entry.code or "done"),
        )
    return table


def deliveries_table(deliveries: Iterable[WebhookDelivery]) -> Table:
    """A line per message to a webhook."""
    table = _table("message", "type", "to", "status", "tries", "last answer")
    for sent in deliveries:
        last = sent.last_error or ("–" if sent.last_status is None else str(sent.last_status))
        table.add_row(sent.id, sent.type, clean(sent.endpoint), sent.status, str(sent.attempts), last)
    return table


def model_view(model: Model) -> RenderableType:
    """One model."""
    head = Table.grid(padding=(0, 2))
    sides = "×".join("any" if side is None else str(side) for side in model.shape)
    origin = f"{model.role} of {model.job_id}" if model.origin == "job" else f"uploaded, {model.format}"
    for name, value in (
        ("model", model.id),
        ("name", clean(model.name)),
        ("role", origin),
        ("network", clean(model.network)),
        ("parameters", f"{model.parameters:,}"),
        ("accuracy", percent(model.accuracy)),
        ("classes", f"{model.outputs}: {clean(_some(model.classes or ['without names']))}"),
        ("one row", sides + (" (channels, height, width)" if len(model.shape) == 3 else " inputs")),
        ("stored", f"{size(model.bytes)}, sha256 {model.sha256}"),
        ("feed it", clean(_preparing(model.config))),
    ):
        head.add_row(Text(name, style="dim"), value)
    notes = [Text(clean(f"! {note}"), style="yellow") for note in model.notes]
    return Group(head, *notes, Text(), Text(f"As a teacher:  teacher: {{model: {model.id}}}", style="dim"))


def catalogue_table(catalogue: Catalogue) -> Table:
    """A line per entry, its fields below it."""
    table = _table("name", "for", "what it is, and its fields")
    for entry in catalogue.data:
        body = Text(clean(entry.summary))
        for field, schema in entry.json_schema.get("properties", {}).items():
            if "const" in schema:
                continue  # the name itself
            body.append(f"\n{clean(field)}", style="bold")
            body.append(clean(f"  {schema.get('description', '')}"))
        table.add_row(Text(clean(entry.name), style="bold"), ", ".join(entry.tasks), body)
    return table


def sizes_table(catalogue: Catalogue) -> Table:
    """A line per student that fits the data, and one per family of which none does."""
    table = _table("student", "parameters", "MACs", "file", right=True)
    for entry in catalogue.data:
        for sized in entry.sizes:
            figures = (f"{sized.parameters:,}", f"{sized.macs:,}", size(sized.size_bytes))
            table.add_row(clean(architecture(sized.student)), *figures)
        if entry.misfit is not None:
            table.add_row(Text(clean(f"{entry.name}: {entry.misfit}"), style="dim"), "–", "–", "–")
    return table


def validated_view(validated: ValidatedJob) -> RenderableType:
    """What would run."""
    estimate, resolved = validated.estimate, validated.resolved
    head = Table.grid(padding=(0, 2))
    teacher = _teacher(resolved.teacher, "a model the service holds")
    count = "" if estimate.teacher_parameters is None else f", {estimate.teacher_parameters:,} parameters"
    student = f"{estimate.student_parameters:,} parameters, {size(estimate.student_size_bytes)}"
    for name, value in (
        ("task", str(resolved.task)),
        ("teacher", teacher + count),
        ("student", f"{in_words(architecture_of(resolved.student))}, {student}"),
        ("temperature", str(resolved.temperature)),
        ("steps", f"{estimate.steps:,} in all stages"),
    ):
        head.add_row(Text(name, style="dim"), value)
    warnings = [Text(clean(f"! {warning}"), style="yellow") for warning in validated.warnings]
    return Group(Text("The spec is valid; nothing was submitted.", style="green"), head, *warnings)


def architecture(student: Student) -> str:
    """`mlp hidden=[32]`: the dials that are not at their default; of a budget what it allows."""
    if isinstance(student, WithinBudget):
        limits = student.budget.model_dump(exclude_none=True)
        return "largest with " + ", ".join(f"{name} ≤ {most:g}" for name, most in limits.items())
    if isinstance(student, Shrink):
        return f"shrink width={student.width} depth={student.depth}"
    return in_words(student)


def _preparing(config: ModelConfig | ForeignConfig) -> str:
    if isinstance(config, ModelConfig):
        return config.preprocessing
    steps = config.preprocessing.model_dump(exclude_defaults=True, mode="json")
    return ", ".join(f"{name} {value}" for name, value in steps.items()) or "raw values"


def _chosen(chosen: ChosenStudent) -> str:
    words = f"The budget chose {in_words(chosen.student)}"
    if (measured := chosen.candidates[-1].latency_ms) is None:
        return f"{words}."
    return f"{words}: {milliseconds(measured)} a row before training; {len(chosen.candidates) - 1} larger were slower."


def _gap(share: float) -> str:
    if share <= 0:
        return "Here the teacher did not help: the same student is as good or better without it."
    if share > 1:
        return "Here the student made fewer mistakes than the teacher itself."
    return f"The teacher made up {percent(share)} of what the student alone lacks in accuracy."


def _networks(job: Job) -> str:
    return f"{_teacher(job.spec.teacher)} → {architecture(job.spec.student)}"


def _teacher(teacher: Teacher, held: str | None = None) -> str:
    """Who teaches, in a few words; a model of the service by its id, or as `held`."""
    if teacher.previous is not None:
        return "its own predecessor"
    if teacher.ema is not None:
        return "its own average"
    names = [
        architecture(member.train.architecture) if member.train is not None else held or str(member.model)
        for member in teacher.members
    ]
    return names[0] if len(names) == 1 else "ensemble of " + ", ".join(names)


def _latency(model: Measured, batch: int) -> str:
    return next((milliseconds(timing.median_ms) for timing in model.latency if timing.batch == batch), "–")


def _some(words: Sequence[str], most: int = 12) -> str:
    more = f" … {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more


def _table(*headers: str, right: bool = False) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for index, header in enumerate(headers):
        # The first column holds ids and names that people copy: the others give way.
        table.add_column(header, justify="right" if right and index else "left", overflow="fold", no_wrap=index == 0)
    return table


def checkpoints_table(checkpoints: Sequence[Checkpoint]) -> Table:
    """One row per checkpoint."""
    table = _table("no.", "attempt", "phase", "epoch", "step", "loss", "size", "age", right=True)
    for one in checkpoints:
        loss = "–" if one.loss is None else f"{one.loss:.4g}" + (" best" if one.best else "")
        table.add_row(
            str(one.number),
            str(one.attempt),
            one.phase.replace("_", " "),
            str(one.epoch),
            f"{one.step} of {one.steps}",
            loss,
            size(one.bytes),
            age(one.created_at),
        )
    return table
