"""The command line: global options, the commands, and what becomes of errors."""

import os
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from stillhouse.cli import (
    catalogues,
    datasets,
    exits,
    jobs,
    keys,
    models,
    operate,
    secrets,
    teacher_outputs,
    verbs,
    webhooks,
)
from stillhouse.cli.audit import audit
from stillhouse.cli.doctor import doctor
from stillhouse.cli.exits import EXIT_CODES_HELP, ExitCode
from stillhouse.cli.pull import pull
from stillhouse.cli.session import Session
from stillhouse.cli.submit import submit
from stillhouse.cli.watch import watch
from stillhouse.spec.errors import Invalid, StillhouseError

app = typer.Typer(
    name="stillhouse",
    help=f"Distillation as a service: submit a job, follow it, pull a small measured model.\n\n{EXIT_CODES_HELP}",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
if sys.platform != "win32":
    # The supervisor stands on file locks and process groups of Unix; the other commands work anywhere.
    from stillhouse.cli.up import up

    app.command()(up)
app.command()(submit)
app.command()(watch)
app.command()(pull)
verbs.add_to(jobs.app)
app.add_typer(jobs.app, name="jobs")
app.add_typer(datasets.app, name="datasets")
app.add_typer(models.app, name="models")
app.add_typer(teacher_outputs.app, name="teacher-outputs")
app.add_typer(webhooks.app, name="webhooks")
app.add_typer(keys.app, name="keys")
app.add_typer(secrets.app, name="secrets")
app.command()(catalogues.students)
app.command()(catalogues.losses)
app.command()(catalogues.version)
app.command()(audit)
app.command()(doctor)
app.command()(operate.fsck)
app.command()(operate.backup)
app.command()(operate.restore)
app.command()(operate.limits)


@app.callback()
def choose(
    context: typer.Context,
    url: Annotated[
        str | None, typer.Option(help="Address of the service. Default: STILLHOUSE_URL, then what `up` wrote down.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="API key. Default: STILLHOUSE_API_KEY, then what `up` wrote down.")
    ] = None,
) -> None:
    """Note which service the command is for."""
    session: Session = context.obj
    session.url, session.key = url, key


def main() -> None:
    """The `stillhouse` command."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code. Every error becomes a sentence; nothing is raised."""
    session = Session(as_json="--json" in arguments)
    try:
        ended = app(arguments, standalone_mode=False, obj=session, prog_name="stillhouse")
        return ended if isinstance(ended, int) else ExitCode.OK
    except StillhouseError as error:
        session.fail(error)
        return exits.of_error(error)
    except TyperException as error:
        _fail_usage(session, error)
        return ExitCode.USAGE
    except OSError as error:
        session.fail(_of_file(error))
        return ExitCode.USAGE
    except Exception as error:  # noqa: BLE001 (a person must not have to read a traceback)
        return _unforeseen(session, error)


def _fail_usage(session: Session, error: TyperException) -> None:
    message = error.format_message()
    if not message and not session.as_json:
        return  # a group without a command has printed its help already
    context: typer.Context | None = getattr(error, "ctx", None)
    command = "stillhouse" if context is None else context.command_path
    session.fail(Invalid(message or "A command is missing.", hint=f"`{command} --help` says what it takes."))


def _of_file(error: OSError) -> StillhouseError:
    what = error.strerror or str(error)
    hint = "Name another place with -o, or replace it with --force." if isinstance(error, FileExistsError) else None
    return Invalid(f"{error.filename}: {what}." if error.filename else f"{what}.", hint=hint)


def _unforeseen(session: Session, error: Exception) -> int:
    if os.environ.get("STILLHOUSE_TRACEBACK"):
        raise error
    detail = f"The command met a fault of its own: {type(error).__name__}: {error}."
    session.fail(StillhouseError(detail, hint="Run it again with STILLHOUSE_TRACEBACK=1 and report what it prints."))
    return ExitCode.FAILED
