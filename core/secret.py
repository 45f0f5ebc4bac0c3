"""The service's own secret: given by the operator, or made once and kept in the data folder."""

import os
import secrets
from pathlib import Path

from core.settings import Settings

_MIN_CHARACTERS = 32


def secret_key(settings: Settings) -> bytes:
    """The key that signs cursors; the same in every process of the service.

    Without `settings.secret_key` it is made at the first call and kept in `data_dir/secret.key`, readable by
    its owner alone. Raises ValueError when the key is too short to be one.
    """
    if settings.secret_key is not None:
        text = settings.secret_key.get_secret_value()
        name = "STILLHOUSE_SECRET_KEY"
    else:
        path = settings.data_dir.resolve() / "secret.key"
        text = _kept(path)
        name = str(path)
    if len(text) < _MIN_CHARACTERS:
        raise ValueError(f"{name} has {len(text)} characters; use {_MIN_CHARACTERS} or more random ones")
    return text.encode()


def _kept(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        _make(path)
        return path.read_text(encoding="ascii")


def _make(path: Path) -> None:
    """Write the whole file aside, then give it its name: of several processes one wins, and none reads half a key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(48))
            file.flush()
            os.fsync(file.fileno())
        os.link(part, path)
    except FileExistsError:
        return
    finally:
        part.unlink()
