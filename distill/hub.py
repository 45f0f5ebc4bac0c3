"""The Hugging Face Hub, or a mirror of it, as a run may ask it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stillhouse.spec.errors import JobFailure
from stillhouse.spec.secret import SecretRef


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Where published weights come from, and with which tokens."""

    address: str | None = None
    """None: what huggingface_hub asks by itself."""
    cache: Path | None = None
    """Folder for what is downloaded; None: the one of huggingface_hub."""
    tokens: Mapping[str, str] = field(default_factory=dict, repr=False)
    """By the name a spec's `hub_token` gives."""

    def token(self, ref: SecretRef | None) -> str | None:
        """The token to show. Raises JobFailure `secret_unavailable`."""
        if ref is None:
            return None
        if ref.secret in self.tokens:
            return self.tokens[ref.secret]
        raise JobFailure(
            "secret_unavailable",
            f"The secret {ref.secret}, which the spec names, is gone or can no longer be opened.",
            hint=f"Store it again (stillhouse secrets set {ref.secret}), then retry the job.",
        )


PUBLIC = Hub()
"""The usual one, without a token of the spec's."""
