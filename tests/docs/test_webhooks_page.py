"""The page on webhooks: its code verifies what the service sends, its example is a message, its numbers are ours."""

import re
import time
from pathlib import Path
from typing import Any

import yaml

from core.pinned import POST_SECONDS
from models.webhook_secrets import KEPT_AFTER_ROTATION, shown
from stillhouse.spec.webhook import Webhook, WebhookMessage
from worker.webhooks import SCHEDULE_SECONDS, signatures

PAGE = (Path(__file__).resolve().parents[2] / "docs/webhooks.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_its_code_verifies_what_is_sent_and_nothing_else() -> None:
    page: dict[str, Any] = {}
    exec(block("python"), page)
    old, new, now = b"o" * 32, b"n" * 32, int(time.time())

    def headers(at: int) -> dict[str, str]:
        signed = signatures([new, old], "evt_1", at, b"{}")
        return {"webhook-id": "evt_1", "webhook-timestamp": str(at), "webhook-signature": signed}

    for secret in (old, new):
        assert page["verify"](headers(now), b"{}", shown(secret))
    assert not page["verify"](headers(now), b"{} ", shown(new))
    assert not page["verify"](headers(now), b"{}", shown(b"x" * 32))
    assert not page["verify"](headers(now - 3600), b"{}", shown(new))


def test_its_examples_are_valid() -> None:
    assert Webhook.model_validate(yaml.safe_load(block("yaml"))["webhook"]).events == ("succeeded", "failed")
    assert WebhookMessage.model_validate_json(block("json")).data.status == "succeeded"


def test_its_numbers_are_those_of_the_code() -> None:
    assert (5, 300, 1800, *(3600 * hours for hours in (2, 5, 10, 14, 20, 24))) == SCHEDULE_SECONDS
    assert "after 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 hours" in PAGE
    assert f"within {POST_SECONDS:g} seconds" in PAGE
    assert f"for {KEPT_AFTER_ROTATION.total_seconds() / 3600:g} hours" in PAGE
