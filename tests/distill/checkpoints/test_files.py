"""Checkpoint files: whole or not at all, verified, two deep."""

import errno
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from distill.checkpoints import file as files
from distill.checkpoints.file import Damaged, State, read, write
from distill.checkpoints.folder import Folder

TENSORS = {
    "a/wide": torch.arange(6, dtype=torch.float64).reshape(2, 3),
    "a/scalar": torch.tensor(3.5),
    "b/channels last": torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).to(
        memory_format=torch.channels_last
    ),
    "b/half": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "b/empty": torch.empty(0, 7),
    "c/count": torch.tensor(9),
    "c/bytes": torch.tensor([1, 2, 255], dtype=torch.uint8),
    "c/flag": torch.tensor([True, False]),
}
FACTS: dict[str, Any] = {"step": 17, "names": ["ä", "b"], "nothing": None}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "one"
    written = write(path, State(FACTS, TENSORS))
    found = read(path)
    assert found.facts == FACTS
    assert set(found.tensors) == set(TENSORS)
    for name, value in TENSORS.items():
        assert found.tensors[name].dtype == value.dtype
        assert torch.equal(found.tensors[name], value)
    assert written.bytes == path.stat().st_size
    assert os.listdir(tmp_path) == ["one"]
    assert set(found.below("b")) == {"channels last", "half", "empty"}


def test_a_checkpoint_is_a_safetensors_file_that_others_can_read(tmp_path: Path) -> None:
    write(tmp_path / "one", State(FACTS, TENSORS))
    found = load_file(tmp_path / "one")
    assert torch.equal(found.pop("sha256"), torch.tensor(list((tmp_path / "one").read_bytes()[-32:])).byte())
    assert set(found) == set(TENSORS)


def test_a_file_that_is_cut_or_changed_anywhere_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "one"
    write(path, State(FACTS, TENSORS))
    content = path.read_bytes()
    for end in range(0, len(content), 41):
        path.write_bytes(content[:end])
        with pytest.raises(Damaged):
            read(path)
    for place in range(0, len(content), 23):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises(Damaged):
            read(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(Damaged):
        read(path)


def test_a_whole_file_of_another_version_or_kind_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one"
    monkeypatch.setattr(files, "FORMAT", "stillhouse-checkpoint/2")
    write(path, State(FACTS, TENSORS))
    monkeypatch.undo()
    with pytest.raises(Damaged, match="version"):
        read(path)
    for text in (b"[]", b"{}", b"no JSON", json.dumps({"__metadata__": {"stillhouse": "7"}}).encode()):
        body = struct.pack("<Q", len(text)) + text
        path.write_bytes(body + files.hashlib.sha256(body).digest())
        with pytest.raises(Damaged):
            read(path)
    with pytest.raises(Damaged):
        read(tmp_path / "none")


def test_a_disk_that_refuses_leaves_the_last_checkpoint_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path)
    folder.add(State({"n": 1}, TENSORS))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        folder.add(State({"n": 2}, TENSORS))
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["000001.checkpoint"]
    assert folder.add(State({"n": 3}, TENSORS))[0] > "000001.checkpoint"


def test_two_are_kept_and_numbers_rise_over_runs(tmp_path: Path) -> None:
    first = Folder(tmp_path)
    for number in range(3):
        first.add(State({"n": number}, {}))
    assert sorted(os.listdir(tmp_path)) == ["000002.checkpoint", "000003.checkpoint"]
    assert Folder(tmp_path).add(State({"n": 3}, {}))[0] == "000004.checkpoint"


@pytest.mark.parametrize("damage", ["truncated", "bit", "empty", "foreign"])
def test_a_damaged_file_falls_back_to_the_one_before(damage: str, tmp_path: Path) -> None:
    folder, said = Folder(tmp_path), []
    folder.add(State({"n": 1}, TENSORS))
    name, _ = folder.add(State({"n": 2}, TENSORS))
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    if damage == "bit":
        content[len(content) // 2] ^= 1
    path.write_bytes({"truncated": content[:-9], "bit": content, "empty": b"", "foreign": content}[damage])

    def why_not(state: State) -> str | None:
        return "it is of another spec" if damage == "foreign" and state.facts["n"] == 2 else None

    found = Folder(tmp_path).newest(why_not, said.append)
    assert found is not None
    assert found[0] == "000001.checkpoint"
    assert len(said) == 1
    assert "000002.checkpoint is passed over" in said[0]


def test_what_a_killed_run_left_half_written_goes_away(tmp_path: Path) -> None:
    (tmp_path / "000005.checkpoint.partial").write_bytes(b"half")
    (tmp_path / "notes.txt").write_bytes(b"someone's")
    assert Folder(tmp_path).newest(lambda state: None, lambda line: None) is None
    assert os.listdir(tmp_path) == ["notes.txt"]
