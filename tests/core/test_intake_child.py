"""`core.intake_child.intake`: teachers are read by a real process of its own, within limits, and nothing is left."""

import importlib.util
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
import timm
import torch
import transformers
from safetensors.torch import save

from core import intake_child
from core.intake_child import intake
from stillhouse.spec.errors import InvalidData, ServerFault, StillhouseError, TooLarge, Unavailable, UnsupportedMedia
from stillhouse.spec.limits import Limits
from stillhouse.spec.teachers import ForeignConfig, IntakeRequest
from tests.distill.teachers.making import archive, pth, request

TIMM = {"architecture": "timm/resnet10t", "preprocessing": {"size": [32, 32]}}


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, which must be empty again."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of the upload."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


def checkpoint() -> bytes:
    torch.manual_seed(0)
    return save(timm.create_model("resnet10t", num_classes=3).state_dict())


def refused(given: IntakeRequest, temporary: Path) -> StillhouseError:
    with pytest.raises(StillhouseError) as caught:
        intake(given)
    assert list(temporary.iterdir()) == []
    assert [path.name for path in Path(given.output).parent.iterdir()] == ["upload"]
    assert "/tmp" not in str(caught.value)
    return caught.value


def test_a_teacher_is_read_tried_and_stored(home: Path, temporary: Path) -> None:
    given = request(checkpoint(), home, **TIMM)
    checked = intake(given)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.outputs == 3
    assert Path(given.output).stat().st_size == checked.bytes
    assert sorted(path.name for path in home.iterdir()) == ["stored", "upload"]
    assert list(temporary.iterdir()) == []


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> object:
        return os.mkdir, (self.path,)


def test_a_pickle_bomb_does_not_go_off(home: Path, temporary: Path, tmp_path: Path) -> None:
    error = refused(request(pth({"w": Bomb(str(tmp_path / "owned"))}), home, **TIMM), temporary)
    assert (type(error), error.errors[0].code) == (InvalidData, "unsafe_pickle")
    assert not (tmp_path / "owned").exists()


def folder(**config: object) -> bytes:
    """A folder of transformers whose config asks for more than its weights are."""
    made = transformers.ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    whole = json.loads(made.to_json_string()) | {"architectures": ["ViTForImageClassification"]} | config
    processor = {"image_mean": [0.5], "image_std": [0.5], "size": {"height": 224, "width": 224}}
    return archive(
        {
            "config.json": json.dumps(whole),
            "preprocessor_config.json": json.dumps(processor),
            "model.safetensors": save({"a": torch.ones(1)}),
        }
    )


def test_a_config_of_a_hundred_billion_parameters_takes_no_memory(home: Path, temporary: Path) -> None:
    wide = folder(hidden_size=12_288, intermediate_size=49_152, num_hidden_layers=96, num_attention_heads=96)
    # Within what the libraries alone need: not one of its layers would fit beside them.
    limits = Limits(max_intake_memory_bytes=4 * 1024**3)
    error = refused(request(wide, home, limits), temporary)
    assert (type(error), error.errors[0].code) == (TooLarge, "too_many_parameters")


def test_a_config_of_endless_layers_ends_at_the_limits(home: Path, temporary: Path) -> None:
    error = refused(request(folder(num_hidden_layers=10**9), home), temporary)
    assert error.errors[0].code in ("too_many_parameters", "too_much_memory", "corrupt_config")


def test_a_reader_out_of_memory_says_so(home: Path, temporary: Path) -> None:
    big = {"fc.weight": torch.zeros(300_000_000)}
    limits = Limits(max_intake_memory_bytes=3_600 * 1024**2)
    error = refused(request(pth(big), home, limits, **TIMM), temporary)
    assert (type(error), error.errors[0].code) == (InvalidData, "too_much_memory")
    assert "3.52 GiB" in error.detail
    assert "half precision" in str(error.hint)


def test_a_reader_out_of_time_is_ended(home: Path, temporary: Path) -> None:
    error = refused(request(checkpoint(), home, Limits(max_ingest_seconds=0.5), **TIMM), temporary)
    assert (type(error), error.errors[0].code) == (InvalidData, "too_slow")


def test_what_is_not_read_is_refused_as_its_class(home: Path, temporary: Path) -> None:
    error = refused(request(b"\x1f\x8b" + bytes(50), home), temporary)
    assert (type(error), error.errors[0].code) == (UnsupportedMedia, "unsupported_format")


def test_a_reader_that_breaks_off_becomes_a_clean_error(
    home: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = request(checkpoint(), home, **TIMM)
    crash = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    monkeypatch.setattr(intake_child, "_COMMAND", (sys.executable, "-c", crash))
    assert refused(given, temporary).errors[0].code == "unreadable"
    monkeypatch.setattr(intake_child, "_COMMAND", (sys.executable, "-c", "print('no answer')"))
    assert type(refused(given, temporary)) is ServerFault


def test_the_reader_knows_no_secret_and_asks_no_network(
    home: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STILLHOUSE_SECRET_KEY", "canary")
    monkeypatch.setenv("HF_TOKEN", "canary")
    seen = tmp_path / "seen.json"
    script = "import json, os, sys; open(sys.argv[1], 'w').write(json.dumps(dict(os.environ)))"
    monkeypatch.setattr(intake_child, "_COMMAND", (sys.executable, "-c", script, str(seen)))
    refused(request(checkpoint(), home, **TIMM), temporary)
    environment = json.loads(seen.read_text())
    assert "canary" not in environment.values()
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_without_the_engine_the_caller_is_told(home: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="without the engine"):
        intake(request(checkpoint(), home, **TIMM))
