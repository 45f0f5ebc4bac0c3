"""Settings come from environment variables, all of them."""

import os
import subprocess
import sys

import pytest

from core.settings import Settings, WrongSettings
from stillhouse.spec.limits import Limits


@pytest.mark.parametrize("name", list(Limits.model_fields))
def test_every_limit_can_be_set_by_its_variable(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"STILLHOUSE_LIMITS__{name.upper()}", "7")
    limits = Settings().limits
    assert getattr(limits, name) == 7
    assert limits.model_copy(update={name: getattr(Limits(), name)}) == Limits()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PORT", "seventy", "STILLHOUSE_PORT: Input should be a valid integer"),
        ("LIMITS__NO_SUCH", "1", "STILLHOUSE_LIMITS__NO_SUCH: there is no such setting"),
        ("LIMITS__MAX_EPOCHS", "-1", "STILLHOUSE_LIMITS__MAX_EPOCHS: Input should be greater than"),
        ("LIMITS", "max_epochs=7", "STILLHOUSE_LIMITS: must be a JSON object"),
        ("OUTBOUND_ALLOW", "10.0.0.0/8,nowhere", "STILLHOUSE_OUTBOUND_ALLOW: Value error, 'nowhere' does not appear"),
    ],
)
def test_a_wrong_variable_is_named_in_one_line(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"STILLHOUSE_{name}", value)
    with pytest.raises(WrongSettings) as wrong:
        Settings()
    assert str(wrong.value).startswith(said)
    assert "\n" not in str(wrong.value)
    assert "pydantic" not in str(wrong.value)


@pytest.mark.parametrize(
    "command", ["operate.fsck", "operate.limits", "operate.backup taken.tar", "api.keys create --name x"]
)
def test_commands_of_an_operator_say_that_line_alone(command: str) -> None:
    env = os.environ | {"STILLHOUSE_PORT": "seventy"}
    words = [sys.executable, "-m", *command.split()]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode in (1, 2)
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)
    assert done.stderr.startswith("STILLHOUSE_PORT: ")
