"""Teacher classes → dataset classes: worked out from names, positions or what the caller says."""

import difflib
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from stillhouse.spec.base import Contract, LaxTuple
from stillhouse.spec.errors import FieldError

POINTER = "/teacher/label_map"
_NAMED = 20

_Key = Annotated[str, StringConstraints(min_length=1, max_length=500)]
StatedMap = Annotated[dict[_Key, _Key], Field(min_length=1, max_length=100_000)]
"""{teacher class: dataset class}. A teacher class is its name, or its index from 0 as a number in quotes. Dataset
classes no entry leads to are looked for by their name; teacher classes that lead nowhere are left out."""


class LabelMap(Contract):
    """Where each class of a teacher leads."""

    to: Annotated[tuple[Annotated[int, Field(ge=-1)], ...], LaxTuple]
    """For each teacher class the index of its dataset class; -1: none, its probability is left out."""
    by: Literal["same", "name", "position", "stated"]
    """same: the classes are the dataset's own, in its order, and nothing is changed."""
    notes: Annotated[tuple[str, ...], LaxTuple] = ()
    """For people: how it was found, where that is not plain."""

    @property
    def changes_nothing(self) -> bool:
        """Every class leads to itself."""
        return self.to == tuple(range(len(self.to)))


def map_labels(
    names: tuple[str, ...] | None, count: int, classes: tuple[str, ...], stated: Mapping[str, str] | None = None
) -> tuple[LabelMap | None, list[FieldError]]:
    """The map from a teacher of `count` classes (`names`, if known) to a dataset of `classes`, or what is wrong.

    Without a stated map: equal names, in any order, also among more of them; a teacher without names and as many
    classes as the dataset is taken by position. Every dataset class must be reached.
    """
    if names is not None and len(names) != count:
        raise ValueError(f"{len(names)} names for {count} classes")
    if stated is None and names == classes:
        return LabelMap(to=tuple(range(count)), by="same"), []
    if stated is None and names is None:
        return _by_position(count, classes)
    to, wrong = _stated(names, count, classes, stated or {})
    notes, missing = _add_by_name(to, names or (), classes)
    if wrong or missing:
        return None, [*wrong, *_shortened(missing)]
    return LabelMap(to=tuple(to), by="name" if stated is None else "stated", notes=(*notes, *_left_out(to))), []


def _by_position(count: int, classes: tuple[str, ...]) -> tuple[LabelMap | None, list[FieldError]]:
    if count == len(classes):
        note = "The teacher's classes have no names: they are taken to be the dataset's, in its order."
        return LabelMap(to=tuple(range(count)), by="position", notes=(note,)), []
    detail = (
        f"The teacher knows {count} classes without names, the dataset has {len(classes)}: say which is which, by "
        f'their index from 0, as in {{"0": "{classes[0]}"}}, or upload the teacher with the names of its classes.'
    )
    return None, [FieldError(pointer=POINTER, code="class_mismatch", detail=detail)]


def _stated(
    names: tuple[str, ...] | None, count: int, classes: tuple[str, ...], stated: Mapping[str, str]
) -> tuple[list[int], list[FieldError]]:
    to, wrong = [-1] * count, []
    places = _places(names or ())
    numbers = {_composed(name): index for index, name in enumerate(classes)}
    numbers |= {name: index for index, name in enumerate(classes)}
    for key, value in stated.items():
        at, reason = _teacher_class(key, places, count)
        number = numbers.get(value, numbers.get(_composed(value)))
        if at is None:
            wrong.append(_error("unknown_teacher_class", reason, key))
        elif number is None:
            reason = f"The dataset has no class {value!r}{_close(value, classes)}."
            wrong.append(_error("unknown_class", reason, key))
        elif to[at] not in (-1, number):
            reason = f"{key!r} is class {at} of the teacher, which leads to {classes[to[at]]!r} already."
            wrong.append(_error("mapped_twice", reason, key))
        else:
            to[at] = number
    return to, wrong


def _teacher_class(key: str, places: Mapping[str, list[int]], count: int) -> tuple[int | None, str]:
    """The index a key means, or why it means none. A name goes before a number that looks like it."""
    if len(found := places.get(key) or places.get(_composed(key), [])) == 1:
        return found[0], ""
    if found:
        return None, f"The teacher has {len(found)} classes called {key!r}: give the index, one of {found}."
    if key.isascii() and key.isdigit() and len(key) <= 9:
        if int(key) < count:
            return int(key), ""
        return None, f"The teacher has the classes 0 to {count - 1}, and no {key}."
    return None, f"The teacher has no class {key!r}{_close(key, places)}."


def _add_by_name(to: list[int], names: tuple[str, ...], classes: tuple[str, ...]) -> tuple[list[str], list[FieldError]]:
    """Lead teacher classes to the dataset classes nothing leads to yet, where the names agree. Changes `to`."""
    exact, alike = _places(names), defaultdict(list)
    for index, name in enumerate(names):
        for form in {_plain(part) for part in (name, *name.split(","))}:
            alike[form].append(index)
    notes, missing = [], []
    for number, name in enumerate(classes):
        if number in to:
            continue
        found = [i for i in exact.get(name) or alike.get(_plain(name), []) if to[i] == -1]
        if len(found) != 1:
            missing.append(_unreached(name, found, names))
            continue
        to[found[0]] = number
        if _composed(names[found[0]]) != _composed(name):
            notes.append(f"The teacher's {names[found[0]]!r} is taken for {name!r}.")
    return notes, missing


def _unreached(name: str, found: list[int], names: tuple[str, ...]) -> FieldError:
    if found:
        detail = f"Several classes of the teacher could be {name!r}: {', '.join(map(str, found[:5]))}. Map one of them."
    else:
        detail = f"No class of the teacher is called {name!r}{_close(name, names)}. Map those that mean it."
    return FieldError(pointer=POINTER, code="unmapped_class", detail=detail)


def _shortened(missing: list[FieldError]) -> list[FieldError]:
    if len(missing) <= _NAMED:
        return missing
    detail = f"And {len(missing) - _NAMED:,} more classes of the dataset that no class of the teacher leads to."
    return [*missing[:_NAMED], FieldError(pointer=POINTER, code="unmapped_class", detail=detail)]


def _left_out(to: list[int]) -> tuple[str, ...]:
    unused = to.count(-1)
    return (f"{unused:,} of the teacher's {len(to):,} classes lead nowhere and are left out.",) if unused else ()


def _places(names: tuple[str, ...]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    alike: dict[str, list[int]] = defaultdict(list)
    for index, name in enumerate(names):
        places[name].append(index)
        alike[_composed(name)].append(index)
    return {**alike, **places}


def _composed(name: str) -> str:
    """With é as one character, as datasets keep it; what a Mac writes has an e and an accent."""
    return unicodedata.normalize("NFC", name)


def _plain(name: str) -> str:
    return " ".join(_composed(name).casefold().replace("_", " ").replace("-", " ").split())


def _close(name: str, among: Mapping[str, list[int]] | tuple[str, ...]) -> str:
    plain = {_plain(other): other for other in among}
    close = difflib.get_close_matches(_plain(name), plain, n=3, cutoff=0.5)
    close += [form for form in plain if _plain(name) in form.split() and form not in close][: 3 - len(close)]
    return f"; close names: {', '.join(repr(plain[form]) for form in close)}" if close else ""


def _error(code: str, detail: str, key: str) -> FieldError:
    step = key.replace("~", "~0").replace("/", "~1")
    return FieldError(pointer=f"{POINTER}/{step}", code=code, detail=detail)
