"""A closed catalogue: names on one side, what is built from them on the other. Nothing is imported by a name."""

from collections.abc import Callable
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


class Registry(Generic[Entry]):
    """Entries by name, filled by a decorator when the package is imported."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, Entry] = {}

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """Decorator that files the decorated object under `name`. A name that is taken raises ValueError."""

        def file(entry: Entry) -> Entry:
            if name in self._entries:
                raise ValueError(f"the {self._kind} {name!r} is registered twice: give one of them another name")
            self._entries[name] = entry
            return entry

        return file

    def __getitem__(self, name: str) -> Entry:
        if name not in self._entries:
            raise KeyError(f"no {self._kind} is called {name!r}; there are {', '.join(self.names())}")
        return self._entries[name]

    def names(self) -> tuple[str, ...]:
        """All names, in the order of registration."""
        return tuple(self._entries)
