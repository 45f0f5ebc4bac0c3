"""How an upload is refused: a class of the error tree, a pointer to the place, a stable code, a sentence.

Codes and their meanings are `stillhouse.spec.upload.DATA_CODES`. Pointers:

    /file                          the file as a whole
    /file/rows/17                  the 17th data row (the header is not counted, blank lines neither)
    /file/columns/age              a column of a table
    /file/arrays/x/16              an array of an .npz, or a row of it, counted from 0 as numpy does
    /file/members/cats~1a.png      a member of an archive; `/` is written `~1`, `~` is `~0`
    /file/classes/cat              a class
    ?label                         an option of the upload
"""

from typing import Literal

from stillhouse.spec.errors import FieldError, InvalidData, StillhouseError, TooLarge, UnsupportedMedia
from stillhouse.spec.facts import DroppedRow
from stillhouse.spec.upload import DATA_CODES

_NAMED_ERRORS = 20
_LISTED_ROWS = 100


def invalid(pointer: str, code: str, detail: str, hint: str | None = None) -> StillhouseError:
    """The content is wrong."""
    return InvalidData.at(pointer, _known(code), detail, hint=hint)


def too_large(pointer: str, code: str, detail: str, hint: str | None = None) -> StillhouseError:
    """There is more of it than a limit allows."""
    return TooLarge.at(pointer, _known(code), detail, hint=hint)


def unsupported(pointer: str, code: str, detail: str, hint: str | None = None) -> StillhouseError:
    """It is not a kind of file that is read here."""
    return UnsupportedMedia.at(pointer, _known(code), detail, hint=hint)


def all_invalid(detail: str, errors: list[FieldError], hint: str | None = None) -> InvalidData:
    """Several places are wrong; the first 20 are named."""
    for error in errors:
        _known(error.code)
    return InvalidData(detail, hint=hint, errors=errors[:_NAMED_ERRORS])


def pointer(*steps: str | int) -> str:
    """JSON pointer below `/file`. What JSON or a reader of logs could stumble over is escaped, long steps are cut."""
    return "/file" + "".join("/" + _clean(str(step)).replace("~", "~0").replace("/", "~1") for step in steps)


def quoted(text: str) -> str:
    """`text` in quotes for a message: one line, escaped, at most 60 characters."""
    return repr(text if len(text) <= 60 else text[:57] + "...")


def some(names: list[str]) -> str:
    """The first few of many names, for a sentence."""
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5:,} more"


class BadRows:
    """Rows that cannot be used: `reject` refuses the upload and names the first, `drop` lists what is left out."""

    def __init__(self, policy: Literal["reject", "drop"]) -> None:
        self.count = 0
        self._policy = policy
        self._entries: list[tuple[int, FieldError, DroppedRow]] = []

    def add(self, order: int, row: str, at: str, code: str, reason: str) -> None:
        """One bad row: its place among all rows, its name, pointer, code and a sentence."""
        self.count += 1
        error = FieldError(pointer=at, code=_known(code), detail=reason)
        self._entries.append((order, error, DroppedRow(row=row, reason=reason)))
        if len(self._entries) > 4 * _LISTED_ROWS:
            self._entries = self._first()

    def add_unnamed(self, count: int) -> None:
        """Bad rows behind the first hundred: only their number is kept."""
        self.count += count

    @property
    def wants_more(self) -> bool:
        """False once enough rows are named, so that the others need only be counted."""
        return self.count < _LISTED_ROWS

    @property
    def dropped(self) -> list[DroppedRow]:
        """The first hundred, in the order of the file."""
        return [row for _, _, row in self._first()]

    def check(self, rows_read: int) -> None:
        """Raise InvalidData when the upload must be refused for its bad rows."""
        if self.count == 0:
            return
        errors = [error for _, error, _ in self._first()]
        of_all = f"{self.count:,} of {rows_read:,} rows"
        if self._policy == "reject":
            hint = "Mend them, or leave them out with bad_rows=drop."
            if any(error.code == "empty_label" for error in errors):
                hint += " Training rows without a label can stay, with unlabelled=keep."
            raise all_invalid(f"{of_all} cannot be used.", errors, hint)
        if self.count * 2 > rows_read:
            detail = f"{of_all} cannot be used: more than half, so something is wrong with the file as a whole."
            raise all_invalid(detail, errors, "Check the separator, the label column and the columns to ignore.")

    def _first(self) -> list[tuple[int, FieldError, DroppedRow]]:
        return sorted(self._entries, key=lambda entry: entry[0])[:_LISTED_ROWS]


def _known(code: str) -> str:
    if code not in DATA_CODES:
        raise ValueError(f"undocumented code {code!r}")
    return code


def _clean(text: str) -> str:
    text = text if len(text) <= 200 else text[:197] + "..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
