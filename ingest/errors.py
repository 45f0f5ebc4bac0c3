"""How an uploaded dataset is refused: see `stillhouse.spec.refusing`.

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

from stillhouse.spec.errors import FieldError
from stillhouse.spec.facts import DroppedRow
from stillhouse.spec.refusing import all_invalid, known

_LISTED_ROWS = 100


class BadRows:
    """Rows that cannot be used: `reject` refuses the upload and names the first, `drop` lists what is left out."""

    def __init__(self, policy: Literal["reject", "drop"]) -> None:
        self.count = 0
        self._policy = policy
        self._entries: list[tuple[int, FieldError, DroppedRow]] = []

    def add(self, order: int, row: str, at: str, code: str, reason: str) -> None:
        """One bad row: its place among all rows, its name, pointer, code and a sentence."""
        self.count += 1
        error = FieldError(pointer=at, code=known(code), detail=reason)
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
            hint = "See what the first have in common; of a table, also separator, label column and columns to ignore."
            raise all_invalid(detail, errors, hint)

    def _first(self) -> list[tuple[int, FieldError, DroppedRow]]:
        return sorted(self._entries, key=lambda entry: entry[0])[:_LISTED_ROWS]
