"""One run of the command line: which service, and how to speak. Answers go to stdout, everything else to stderr."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel
from rich.console import Console, RenderableType
from rich.text import Text

from stillhouse.cli.text import clean
from stillhouse.client import Client
from stillhouse.spec.errors import StillhouseError

AsJson = Annotated[bool, typer.Option("--json", help="Print the answer as JSON, and nothing else.")]
"""The `--json` of every command. What it does is read from the session: it counts wherever it stands."""

Found = TypeVar("Found")

# Where nobody looks at a terminal, a line is not broken: programs read it.
_WIDE = 240


@dataclass
class Session:
    """What all commands share."""

    as_json: bool = False
    url: str | None = None
    key: str | None = None

    @cached_property
    def out(self) -> Console:
        """Where answers go."""
        return _console(sys.stdout.isatty(), stderr=False)

    @cached_property
    def err(self) -> Console:
        """Where notes and errors go."""
        return _console(sys.stderr.isatty(), stderr=True)

    @property
    def live(self) -> bool:
        """True when a moving picture can be drawn: a terminal, and nobody asked for plain text."""
        plain = self.as_json or os.environ.get("NO_COLOR") or os.environ.get("CI")
        return not plain and self.out.is_terminal and not self.out.is_dumb_terminal

    def client(self) -> Client:
        """A client of the chosen service."""
        return Client(self.url, self.key)

    def answer(self, value: Any, human: Callable[[], RenderableType | None]) -> None:
        """Print an answer: as JSON, or as `human` draws it."""
        if self.as_json:
            sys.stdout.write(json.dumps(_plain(value), ensure_ascii=False, indent=2) + "\n")
            sys.stdout.flush()
        elif (drawn := human()) is not None:
            self.out.print(drawn)

    def say(self, *lines: str) -> None:
        """Print lines of an answer for people."""
        for line in lines:
            self.out.print(Text(clean(line)), soft_wrap=True)

    def note(self, line: str) -> None:
        """Say something that is not the answer."""
        if not self.as_json:
            self.err.print(Text(clean(line)), soft_wrap=True)

    def fail(self, error: StillhouseError, *, place: Callable[[str], str] = str) -> None:
        """Print an error: a sentence, a line per field (`place` says where its pointer lies), the hint."""
        if self.as_json:
            sys.stderr.write(error.problem().model_dump_json(exclude_none=True) + "\n")
            return
        self.err.print(Text(f"Error: {clean(error.detail)}", style="bold red"), soft_wrap=True)
        for field in error.errors:
            where = Text(f"  {clean(place(field.pointer))}: ", style="bold")
            self.err.print(where + Text(clean(field.detail), style="not bold"), soft_wrap=True)
        if error.hint:
            self.err.print(Text(f"hint: {clean(error.hint)}", style="yellow"), soft_wrap=True)
        if error.request_id and error.status >= 500:
            self.err.print(Text(f"request: {clean(error.request_id)}", style="dim"), soft_wrap=True)


def of(context: typer.Context) -> Session:
    """The session of a command."""
    session: Session = context.find_root().obj
    return session


def ask(
    context: typer.Context, question: Callable[[Client], Found], view: Callable[[Found], RenderableType | None]
) -> None:
    """A whole command that asks the service one thing and prints the answer."""
    speak = of(context)
    with speak.client() as client:
        found = question(client)
    speak.answer(found, lambda: view(found))


def ask_list(
    context: typer.Context,
    question: Callable[[Client], Iterable[Found]],
    table: Callable[[list[Found]], RenderableType],
    *,
    none: str,
) -> None:
    """The same for a list; `none` stands where it is empty."""
    ask(context, lambda client: list(question(client)), lambda found: table(found) if found else Text(none))


def _console(is_terminal: bool, *, stderr: bool) -> Console:
    return Console(stderr=stderr, width=None if is_terminal else _WIDE, highlight=False, markup=False, emoji=False)


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
