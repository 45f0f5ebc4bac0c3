"""Secrets through the client and the command line."""

import io
import json

import pytest
from pydantic import ValidationError

from stillhouse.cli.app import run
from stillhouse.spec.errors import NotFound
from tests.house import House

TOKEN = "hf_CanaryToken0123456789"


def test_a_secret_is_set_listed_and_deleted(house: House) -> None:
    with house.client() as client:
        made = client.secrets.set("team-hub", TOKEN)
        assert client.secrets.set("team-hub", TOKEN).created_at == made.created_at
        assert "team-hub" in [secret.name for secret in client.secrets.list()]
        client.secrets.delete("team-hub")
        with pytest.raises(NotFound):
            client.secrets.delete("team-hub")
        with pytest.raises(ValidationError) as caught:
            client.secrets.set("team-hub", TOKEN + "\n")
    assert TOKEN not in str(caught.value)


def test_the_command_reads_the_value_from_standard_input(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ["--url", house.url, "--key", house.key]
    for given, ended in ((f"{TOKEN}\n", 0), (f"{TOKEN}\r\n", 0), ("", 2), ("x" * 4097, 2), (f"two {TOKEN}", 2)):
        monkeypatch.setattr("sys.stdin", io.StringIO(given))
        assert run([*place, "secrets", "set", "cli-hub"]) == ended
        said = capsys.readouterr()
        assert TOKEN not in said.out + said.err
    assert run([*place, "secrets", "list", "--json"]) == 0
    assert "cli-hub" in [one["name"] for one in json.loads(capsys.readouterr().out)]
    assert run([*place, "secrets", "list"]) == 0
    assert "cli-hub" in capsys.readouterr().out
    assert run([*place, "secrets", "delete", "cli-hub"]) == 0
    assert "Deleted cli-hub." in capsys.readouterr().out
