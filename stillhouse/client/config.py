"""Which service, and whose key: from the arguments, then the environment, then the file `stillhouse up` wrote."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from stillhouse.spec.errors import BadAnswer, Unreachable

URL_VARIABLE = "STILLHOUSE_URL"
KEY_VARIABLE = "STILLHOUSE_API_KEY"
Source = Literal["argument", "environment", "file"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Address of a service and the key to show it."""

    url: str
    """Without a slash at its end."""
    key: str | None = field(repr=False)
    """None: only the routes that need no key can be asked."""
    source: Source
    """Where the address was found."""


def config_path() -> Path:
    """`stillhouse/client.json` below XDG_CONFIG_HOME, which is `~/.config` when unset."""
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "stillhouse" / "client.json"


def find_config(url: str | None = None, key: str | None = None) -> Config:
    """Complete what is not given. Raises Unreachable when no address is found or it is not one."""
    stored_url, stored_key = _stored()
    sources: tuple[tuple[Source, str | None], ...] = (
        ("argument", url),
        ("environment", os.environ.get(URL_VARIABLE)),
        ("file", stored_url),
    )
    source, found = next(((source, found) for source, found in sources if found), (None, None))
    if source is None or found is None:
        raise Unreachable(
            "No service is configured.",
            hint=f"Start one with `stillhouse up`, or set {URL_VARIABLE} and {KEY_VARIABLE}.",
        )
    address = _checked(found)
    key = key or os.environ.get(KEY_VARIABLE)
    # A key is shown only to the service it was written down with.
    if key is None and stored_url is not None and address == stored_url.rstrip("/"):
        key = stored_key
    return Config(url=address, key=key, source=source)


def _stored() -> tuple[str | None, str | None]:
    path = config_path()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        url, key = content["url"], content.get("key")
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadAnswer(
            f"The settings file {path} cannot be read.",
            hint="Remove it; `stillhouse up` writes it anew.",
        ) from error
    return str(url), None if key is None else str(key)


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment or parts.username:
        raise Unreachable(
            f"{url!r} is not the address of a service.", hint="Write it like http://127.0.0.1:8000, and nothing more."
        )
    return url.rstrip("/")
