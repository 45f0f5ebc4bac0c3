"""Which service and which key a client takes."""

import json
from pathlib import Path

import pytest

from stillhouse.client import Client, config_path, find_config
from stillhouse.spec.errors import BadAnswer, Unreachable


def write_down(url: str, key: str) -> None:
    """What `stillhouse up` leaves."""
    config_path().parent.mkdir(parents=True)
    config_path().write_text(json.dumps({"url": url, "key": key}))


def test_arguments_come_first_then_the_environment_then_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    write_down("http://file:1", "shk_file")
    assert (find_config().url, find_config().key, find_config().source) == ("http://file:1", "shk_file", "file")
    monkeypatch.setenv("STILLHOUSE_URL", "http://environment:1/")
    monkeypatch.setenv("STILLHOUSE_API_KEY", "shk_environment")
    found = find_config()
    assert (found.url, found.key, found.source) == ("http://environment:1", "shk_environment", "environment")
    found = find_config("http://argument:1", "shk_argument")
    assert (found.url, found.key, found.source) == ("http://argument:1", "shk_argument", "argument")


def test_the_stored_key_is_shown_only_to_the_service_it_belongs_to() -> None:
    write_down("http://file:1", "shk_file")
    assert find_config("http://file:1/").key == "shk_file"
    assert find_config("http://elsewhere:1").key is None
    assert find_config("http://file:12").key is None


def test_the_file_lies_below_xdg_config_home_or_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "/somewhere")
    assert config_path() == Path("/somewhere/stillhouse/client.json")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    assert config_path() == Path("/home/ada/.config/stillhouse/client.json")


def test_without_any_of_them_the_error_names_the_ways_out() -> None:
    with pytest.raises(Unreachable) as caught:
        Client()
    assert caught.value.hint is not None
    assert "stillhouse up" in caught.value.hint
    assert "STILLHOUSE_URL" in caught.value.hint


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "x"}', "\0"])
def test_a_damaged_file_is_named(content: str) -> None:
    config_path().parent.mkdir(parents=True)
    config_path().write_text(content)
    with pytest.raises(BadAnswer, match=r"client\.json"):
        find_config()


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://host",
        "http://",
        "http://host:99999",
        "http://host/?a=1",
        "http://a:b@host",
        "http://[::1",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(Unreachable, match="not the address"):
        find_config(url)


def test_the_key_is_not_part_of_what_is_printed() -> None:
    assert "shk_secret" not in repr(find_config("http://host", "shk_secret"))
