"""Secrets at rest: AES-256-GCM under a key derived from the service's own, so a copy of the database opens nothing."""

import base64
import binascii
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from core.secret import secret_key
from core.settings import Settings

_FORM = "1:"
"""Begins every sealed text, so that another way to seal can follow this one."""
_NONCE_BYTES = 12


class Unsealable(Exception):
    """The text was sealed with another key or for another owner, or is damaged."""


class Sealer:
    """Seals and opens. The owner is bound in: a sealed text copied to another row does not open there."""

    def __init__(self, key: bytes) -> None:
        derived = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"stillhouse secrets at rest").derive(key)
        self._cipher = AESGCM(derived)

    @classmethod
    def of(cls, settings: Settings) -> "Sealer":
        """The sealer of this service; the same in every process with the same secret key."""
        return cls(secret_key(settings))

    def seal(self, secret: bytes, *, owner: str) -> str:
        """The secret as text that only `open` with the same key and owner can read."""
        nonce = os.urandom(_NONCE_BYTES)
        return _FORM + base64.b64encode(nonce + self._cipher.encrypt(nonce, secret, owner.encode())).decode()

    def open(self, sealed: str, *, owner: str) -> bytes:
        """The secret again. Raises Unsealable."""
        if not sealed.startswith(_FORM):
            raise Unsealable
        try:
            data = base64.b64decode(sealed.removeprefix(_FORM), validate=True)
            return self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], owner.encode())
        except (binascii.Error, ValueError, InvalidTag):
            raise Unsealable from None
