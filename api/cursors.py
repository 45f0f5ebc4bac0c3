"""Cursors of lists: where to read on, signed, so that nobody can make one up or carry one elsewhere."""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable

from stillhouse.spec.errors import Gone, Invalid

LIFETIME_SECONDS = 24 * 3600
_SIGNATURE_BYTES = 16


class Cursors:
    """Makes and reads cursors. Each is bound to one project and one list."""

    def __init__(self, key: bytes, *, clock: Callable[[], float] = time.time) -> None:
        # A key of its own, so that a signature of ours can never pass for a cursor.
        self._key = hmac.digest(key, b"stillhouse cursor", hashlib.sha256)
        self._clock = clock

    def issue(self, project_id: str, list_name: str, position: str) -> str:
        """A cursor that says: read on after `position`."""
        payload = json.dumps([list_name, position, int(self._clock())], separators=(",", ":")).encode()
        return urlsafe_b64encode(self._sign(project_id, payload) + payload).rstrip(b"=").decode()

    def read(self, project_id: str, list_name: str, cursor: str) -> str:
        """The position. Raises Gone after a day, Invalid for a cursor that is not one of this project and list."""
        try:
            raw = urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        except ValueError:
            raise _foreign() from None
        signature, payload = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(project_id, payload)):
            raise _foreign()
        its_list, position, issued = json.loads(payload)
        if its_list != list_name:
            raise _foreign()
        if self._clock() - issued > LIFETIME_SECONDS:
            raise Gone("The cursor has expired: it lasts a day.", hint="Start the list anew, without `after`.")
        return str(position)

    def _sign(self, project_id: str, payload: bytes) -> bytes:
        message = project_id.encode() + b"\0" + payload
        return hmac.digest(self._key, message, hashlib.sha256)[:_SIGNATURE_BYTES]


def _foreign() -> Exception:
    return Invalid.at(
        "?after",
        "bad_cursor",
        "This is not a cursor of this list.",
        hint="Pass the `next_cursor` of the page before, unchanged; or start without `after`.",
    )
