"""From the labels of an upload to classes: names in a fixed order, and an index for each text."""

import re
import unicodedata
from collections.abc import Collection

from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, quoted, too_large

_MAX_NAME = 200
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"(-?(?:0|[1-9]\d*))(?:\.0*)?", re.ASCII)


UNLABELLED = -1
"""In place of a class, for a row that has none."""

_NOT_A_CLASS = frozenset({"-1", "-1.0"})


def plain(text: str) -> str:
    """`text` as names are compared and kept: no blanks around it, and é as one character.

    An é may also be an e and an accent, as in what a Mac writes; both look alike, so they are one name (NFC,
    https://unicode.org/reports/tr15).
    """
    return unicodedata.normalize("NFC", text.strip())


def means_unlabelled(label: str) -> bool:
    """True for what data sets of arrays and images put in place of a label they do not have."""
    return is_missing(label) or label in _NOT_A_CLASS


def is_missing(label: str) -> bool:
    """True for an empty label and for the NaN that tools write in its place."""
    return label == "" or label.lower() == "nan"


def make_classes(labels: Collection[str], at: str, limits: Limits) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the class names and each label's class index.

    Whole numbers become classes in numeric order (`1.0` is `1`), everything else in alphabetic order.
    `at` points to where the labels come from. Raises InvalidData for measurements, for a single class, and for
    names that cannot be shown; TooLarge for too many.
    """
    if len(labels) > limits.max_classes:
        raise too_many_classes(at, limits)
    names = _names(labels, at)
    classes = tuple(sorted(set(names.values()), key=_numeric if _all_whole(labels) else str))
    if len(classes) < 2:
        only = f"the only one is {quoted(classes[0])}" if classes else "there is none"
        raise invalid(at, "one_class", f"At least 2 classes are needed; {only}.")
    index = {name: i for i, name in enumerate(classes)}
    return classes, {label: index[name] for label, name in names.items()}


def too_many_classes(at: str, limits: Limits) -> Exception:
    """The refusal of a label with more values than there may be classes."""
    detail = f"The label has more than the limit of {limits.max_classes:,} different values."
    return too_large(at, "too_many_classes", detail, "A label names a class; it is not a measurement or an id.")


def check_name(name: str, at: str, what: str) -> None:
    """Raise InvalidData for a name with control characters or of more than 200 characters."""
    if not name or len(name) > _MAX_NAME or not name.isprintable():
        detail = f"The {what} {quoted(name)} cannot be used: names have 1 to {_MAX_NAME} printable characters."
        raise invalid(at, "bad_name", detail)


def _names(labels: Collection[str], at: str) -> dict[str, str]:
    if _all_whole(labels):
        return {label: str(_numeric(label)) for label in labels}
    if labels and all(_NUMBER.fullmatch(label) for label in labels):
        fraction = next((label for label in sorted(labels) if not float(label).is_integer()), None)
        if fraction is not None:
            detail = f"The labels are fractions such as {fraction}: a class is a whole number or a name."
            hint = "Round or bin them into classes first, or name another label column."
            raise invalid(at, "fractional_labels", detail, hint)
    for label in labels:
        check_name(label, at, "class")
    return {label: label for label in labels}


def _all_whole(labels: Collection[str]) -> bool:
    # Zero-padded codes such as 007 stay text: as numbers they would lose their form. int() of very long digits is
    # quadratic, so those stay text too.
    return all(len(label) <= 30 and _WHOLE.fullmatch(label) for label in labels)


def _numeric(label: str) -> int:
    match = _WHOLE.fullmatch(label)
    assert match is not None
    return int(match[1])
