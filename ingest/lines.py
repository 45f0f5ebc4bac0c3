"""Lines of UTF-8 text, each capped, so that memory does not depend on the shape of a file."""

from collections.abc import Iterator
from typing import IO

from stillhouse.spec.refusing import invalid, pointer, too_large

MAX_LINE_BYTES = 8 * 1024**2
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_ENCODING_HINT = "Save the file as UTF-8."
_NO_TEXT_HINT = "Save the file as UTF-8, or upload Parquet, .npz or a ZIP of images."


class Lines:
    """Lines of text, each with its line end; knows in which row it is so that its errors can say so."""

    def __init__(self, file: IO[bytes], *, row: int) -> None:
        self._file = file
        self.bytes = 0
        self.count = 0
        """Lines so far, blank ones too."""
        self.row = row
        """0 in the header, then the number of the row being read."""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        start = self.bytes
        line = self._file.readline(MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        self.bytes += len(line)
        self.count += 1
        if start == 0:
            if line.startswith(_UTF16):
                raise invalid("/file", "not_utf8", "The file is UTF-16 or UTF-32.", _ENCODING_HINT)
            line = line.removeprefix(b"\xef\xbb\xbf")
        if len(line) > MAX_LINE_BYTES:
            detail = f"A line of {self.place} is longer than the limit of {MAX_LINE_BYTES:,} bytes."
            raise too_large(self.at, "line_too_long", detail, "Check the line ends and the quotes.")
        if b"\0" in line:
            detail = f"There is a NUL byte in {self.place}: this is not UTF-8 text."
            raise invalid(self.at, "nul_byte", detail, _NO_TEXT_HINT)
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = self.bytes - len(line) + error.start
            detail = f"Byte {byte:,} of the file, in {self.place}, is not UTF-8."
            raise invalid(self.at, "not_utf8", detail, _ENCODING_HINT) from None

    @property
    def place(self) -> str:
        """Where the reader is, for a sentence."""
        return f"row {self.row}" if self.row else "the header"

    @property
    def at(self) -> str:
        """Where the reader is, as a pointer."""
        return pointer("rows", self.row) if self.row else "/file"


def bare_carriage_return(at: str, subject: str) -> Exception:
    """The refusal of lines that end, or break, with a carriage return alone."""
    return invalid(at, "bad_line_ends", f"{subject} has a bare carriage return.", "End lines with LF or CRLF.")
