"""Secrets at rest open under the same key, for the same owner, undamaged, and not otherwise."""

import base64

import pytest

from core.sealing import Sealer, Unsealable
from core.settings import Settings

KEY = b"k" * 32


def test_what_is_sealed_opens_for_its_owner() -> None:
    sealed = Sealer(KEY).seal(b"secret", owner="prj_a")
    assert Sealer(KEY).open(sealed, owner="prj_a") == b"secret"


def test_sealing_twice_gives_two_texts() -> None:
    assert Sealer(KEY).seal(b"secret", owner="prj_a") != Sealer(KEY).seal(b"secret", owner="prj_a")


def test_another_key_or_owner_opens_nothing() -> None:
    sealed = Sealer(KEY).seal(b"secret", owner="prj_a")
    with pytest.raises(Unsealable):
        Sealer(b"l" * 32).open(sealed, owner="prj_a")
    with pytest.raises(Unsealable):
        Sealer(KEY).open(sealed, owner="prj_b")


def test_a_damaged_text_opens_nothing() -> None:
    sealed = Sealer(KEY).seal(b"secret", owner="prj_a")
    data = base64.b64decode(sealed.removeprefix("1:"))
    for position in range(len(data)):
        damaged = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        with pytest.raises(Unsealable):
            Sealer(KEY).open("1:" + base64.b64encode(damaged).decode(), owner="prj_a")
    for text in ("", "1:", "1:AAAA", "1:ä", sealed[:-4], sealed + "AAAA", sealed.removeprefix("1:"), "2" + sealed[1:]):
        with pytest.raises(Unsealable):
            Sealer(KEY).open(text, owner="prj_a")


def test_all_processes_with_the_same_settings_open_each_others_texts(tmp_path_factory: pytest.TempPathFactory) -> None:
    kept = Settings(data_dir=tmp_path_factory.mktemp("kept"), secret_key=None)
    given = Settings(data_dir=tmp_path_factory.mktemp("given"), secret_key="x" * 32)
    for settings in (kept, given):
        sealed = Sealer.of(settings).seal(b"secret", owner="prj_a")
        assert Sealer.of(settings).open(sealed, owner="prj_a") == b"secret"
    with pytest.raises(Unsealable):
        Sealer.of(kept).open(sealed, owner="prj_a")
