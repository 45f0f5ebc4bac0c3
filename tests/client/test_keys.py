"""Keys through the client and the command line."""

import json

import pytest

from stillhouse.cli.app import run
from stillhouse.client import Client
from stillhouse.spec.errors import Conflict, Forbidden, NotFound, Unauthorized
from tests.house import House


def test_a_key_is_made_used_rotated_and_revoked(house: House) -> None:
    with house.client() as client:
        made = client.keys.create("ci", scope="read", expires_in_days=30)
        assert client.keys.get(made.id).start == made.key[:8]
        with Client(house.url, made.key) as other:
            assert (other.keys.me().project, other.keys.me().key.id) == ("default", made.id)
            with pytest.raises(Forbidden, match="scope admin"):
                list(other.keys.list())
        new = client.keys.rotate(made.id, overlap_hours=0)
        with Client(house.url, made.key) as old, pytest.raises(Unauthorized):
            old.keys.me()
        client.keys.revoke(new.id)
        client.keys.revoke(new.id)
        assert {key.id for key in client.keys.list()} >= {made.id, new.id}
        with pytest.raises(NotFound):
            client.keys.get("key_" + "0" * 26)
        with pytest.raises(Conflict):
            client.keys.revoke(client.keys.me().key.id)


def test_the_commands_do_the_same(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--url", house.url, "--key", house.key]
    assert run([*place, "keys", "create", "ci", "--scope", "read", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert run([*place, "keys", "rotate", made["id"], "--overlap-hours", "0"]) == 0
    new = capsys.readouterr().out.strip()
    assert run(["--url", house.url, "--key", new, "keys", "me"]) == 0
    assert "scope read" in capsys.readouterr().out
    assert run(["--url", house.url, "--key", new, "keys", "ls"]) == 1
    assert "hint: A key with the scope admin may" in capsys.readouterr().err
    assert run([*place, "keys", "revoke", made["id"]]) == 0
    capsys.readouterr()
    assert run([*place, "keys", "ls"]) == 0
    listed = capsys.readouterr().out
    assert made["id"] in listed
    assert "revoked" in listed
    assert new not in listed


def test_what_was_done_is_in_the_audit_log(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    with house.client() as client:
        made = client.keys.create("audited")
        (entry,) = client.audit.list(target=made.id)
        assert (entry.action, entry.status, entry.code) == ("create_key", 201, None)
        assert entry.address == "127.0.0.1"
    assert run(["--url", house.url, "--key", house.key, "audit", "--target", made.id]) == 0
    assert "create_key" in capsys.readouterr().out


def test_the_client_tells_what_the_project_uses(house: House) -> None:
    with house.client() as client:
        usage = client.usage()
    assert 0 <= usage.storage_bytes < usage.max_storage_bytes
    assert usage.max_requests_per_minute == house.settings.limits.max_requests_per_minute
