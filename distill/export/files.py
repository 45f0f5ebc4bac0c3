"""The folder a job leaves: every file hashed, and a list of the hashes anyone can check."""

from pathlib import Path
from typing import Literal

from distill.model import digest
from stillhouse.spec.events import OutputFile

Kind = Literal["weights", "config", "onnx", "report", "card", "checksums", "teacher_weights", "teacher_config"]


class OutputFolder:
    """Writes files and remembers what it wrote."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: list[OutputFile] = []

    def write(self, name: str, kind: Kind, content: bytes) -> None:
        """Write one file."""
        (self._folder / name).write_bytes(content)
        self.files.append(OutputFile(name=name, kind=kind, bytes=len(content), sha256=digest(content)))

    def write_checksums(self) -> None:
        """SHA256SUMS over the student's files, as `sha256sum -c` reads it."""
        student = [file for file in self.files if not file.kind.startswith("teacher")]
        lines = [f"{file.sha256}  {file.name}\n" for file in student]
        self.write("SHA256SUMS", "checksums", "".join(lines).encode())
