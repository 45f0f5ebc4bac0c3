"""How an untrusted file is refused: a class of the error tree, a pointer to the place, a stable code, a sentence.

Codes and their meanings are `stillhouse.spec.upload.DATA_CODES`; pointers start with `/file`, or name an option.
"""

from stillhouse.spec.errors import FieldError, InvalidData, StillhouseError, TooLarge, UnsupportedMedia
from stillhouse.spec.upload import DATA_CODES

_NAMED_ERRORS = 20
_FIXES = {
    "empty_file": "Check that the file was written, and name it whole when you send it.",
    "no_rows": "Check that the file was written whole; a dataset needs rows of two classes or more.",
    "too_many_bytes": "Upload a smaller file: fewer rows, smaller images, a smaller network.",
    "too_many_rows": "Upload fewer rows.",
    "too_many_columns": "Upload fewer columns.",
    "too_many_members": "Pack fewer files.",
    "too_many_pixels": "Make the images smaller.",
    "option_does_not_apply": "Leave the option out.",
    "over_limit": "Give a smaller one.",
    "bad_name": "Rename it.",
    "one_class": "Check which column or folder names the class, and add rows of another.",
    "bad_shape": "Save x as [rows, columns] or [rows, height, width, channels], and y with one label for each row.",
    "unsupported_type": "Convert it to numbers, or leave it out.",
    "length_mismatch": "Save as many labels as rows.",
    "no_such_column": "Name one of the columns.",
    "duplicate_header": "Give each column a name of its own.",
    "empty_header": "Name every column.",
    "duplicate_class": "Name each class once.",
    "empty_column": "Fill it, or leave it out.",
}
"""What mends an error of a code, for places that know no better."""


def invalid(pointer: str, code: str, detail: str, hint: str | None = None) -> StillhouseError:
    """The content is wrong."""
    return InvalidData.at(pointer, known(code), detail, hint=hint or _FIXES.get(code))


def too_large(pointer: str, code: str, detail: str, hint: str | None = None) -> StillhouseError:
    """There is more of it than a limit allows."""
    return TooLarge.at(pointer, known(code), detail, hint=hint or _FIXES.get(code))


def unsupported(pointer: str, code: str, detail: str, hint: str | None = None) -> StillhouseError:
    """It is not a kind of file that is read here."""
    return UnsupportedMedia.at(pointer, known(code), detail, hint=hint or _FIXES.get(code))


def all_invalid(detail: str, errors: list[FieldError], hint: str | None = None) -> InvalidData:
    """Several places are wrong; the first 20 are named."""
    for error in errors:
        known(error.code)
    return InvalidData(detail, hint=hint or _FIXES.get(errors[0].code), errors=errors[:_NAMED_ERRORS])


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


def known(code: str) -> str:
    """The code itself. Raises ValueError for one that is not documented."""
    if code not in DATA_CODES:
        raise ValueError(f"undocumented code {code!r}")
    return code


def _clean(text: str) -> str:
    text = text if len(text) <= 200 else text[:197] + "..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
