"""Arguments several commands take."""

from typing import Annotated

import typer

from stillhouse.client import Client
from stillhouse.spec.errors import Invalid, NotFound
from stillhouse.spec.ids import is_id
from stillhouse.spec.views import Job

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Full id of a job, or `last` for the newest.")]
Count = Annotated[int, typer.Option("-n", "--count", min=1, help="At most so many, the newest first.")]
Deleted = Annotated[bool, typer.Option("--deleted", help="Those in the trash, instead of all others.")]


def job_of(client: Client, given: str) -> Job:
    """The job an argument names. Raises Invalid for what is no id, NotFound."""
    if given == "last":
        newest = next(client.jobs.list(limit=1), None)
        if newest is None:
            raise NotFound("There is no job yet.", hint="stillhouse submit job.yaml makes one.")
        return newest
    if not is_id("job", given):
        raise Invalid(
            f"{given!r} is not the id of a job.",
            hint="Give the full id (job_ and 26 characters, see `stillhouse jobs ls`), or `last`.",
        )
    return client.jobs.get(given)


def labels_of(given: list[str]) -> dict[str, str]:
    """`key=value` arguments as a dict. Raises Invalid."""
    pairs = [item.partition("=") for item in given]
    if wrong := [key for key, equals, _ in pairs if not (key and equals)]:
        raise Invalid(f"The label {wrong[0]!r} has no value.", hint="Write it as --label key=value.")
    return {key: value for key, _, value in pairs}


def as_option(pointer: str) -> str:
    """What a query parameter is called here: `?split_column` is `--split-column`."""
    return f"--{pointer[1:].replace('_', '-')}" if pointer.startswith("?") else pointer
