"""Digests of files that do not change, worked out once per process."""

from pathlib import Path

from core.storage import sha256_of


class Digests:
    """SHA-256 of files, remembered as long as size, time and inode stay."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, int, int], str]] = {}

    def of(self, path: Path) -> str:
        """Hex digest. Raises OSError."""
        found = path.stat()
        mark = (found.st_size, found.st_mtime_ns, found.st_ino)
        known = self._known.get(str(path))
        if known is None or known[0] != mark:
            known = self._known[str(path)] = mark, sha256_of(path)
        return known[1]
