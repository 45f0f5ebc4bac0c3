"""Settings come from environment variables, all of them."""

import pytest

from core.settings import Settings
from stillhouse.spec.limits import Limits


@pytest.mark.parametrize("name", list(Limits.model_fields))
def test_every_limit_can_be_set_by_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"STILLHOUSE_LIMITS__{name.upper()}", "7")
    limits = Settings().limits
    assert getattr(limits, name) == 7
    assert limits.model_copy(update={name: getattr(Limits(), name)}) == Limits()
