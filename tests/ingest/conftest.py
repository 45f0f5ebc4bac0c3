"""One fixture reads bytes as the service would, in this process; another wants them refused."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open

from ingest.run import run
from stillhouse.spec.errors import StillhouseError
from stillhouse.spec.facts import SPLITS, DataFacts, DataReport, StoredDataset
from stillhouse.spec.limits import Limits
from stillhouse.spec.upload import IngestOptions, IngestRequest


@dataclass(frozen=True)
class Stored:
    """A stored dataset, read back from its file."""

    facts: DataFacts
    report: DataReport
    x: Any
    y: Any
    split: Any
    bytes: bytes

    @property
    def labels(self) -> list[str]:
        return [self.facts.classes[label] for label in self.y]

    @property
    def splits(self) -> list[str]:
        return [SPLITS[split] for split in self.split]


def load(path: Path) -> Stored:
    with safe_open(path, "np") as file:
        dataset = StoredDataset.model_validate_json(file.metadata()["stillhouse"])
        arrays = {name: file.get_tensor(name) for name in ("x", "y", "split")}
    assert arrays["x"].dtype == np.dtype(dataset.facts.dtype)
    assert arrays["x"].shape == (sum(dataset.facts.rows.values()), *dataset.facts.shape)
    assert (arrays["y"].dtype, arrays["split"].dtype) == (np.int64, np.uint8)
    return Stored(dataset.facts, dataset.report, **arrays, bytes=path.read_bytes())


Store = Callable[..., Stored]
Refuse = Callable[..., StillhouseError]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    def read(data: bytes, *, format: str = "auto", limits: Limits | None = None, **options: Any) -> Stored:
        # The name lies on purpose: nothing may depend on it.
        source, output = tmp_path / "upload.exe", tmp_path / "stored"
        source.write_bytes(data)
        request = {"source": str(source), "output": str(output), "format": format}
        answer = run(
            IngestRequest(**request, options=IngestOptions(**options), limits=limits or Limits())  # type: ignore[arg-type]
        )
        stored = load(output)
        assert answer.dataset == StoredDataset(facts=stored.facts, report=stored.report)
        return stored

    return read


@pytest.fixture
def refuse(store: Store, tmp_path: Path) -> Refuse:
    def read(data: bytes, **options: Any) -> StillhouseError:
        (tmp_path / "stored").unlink(missing_ok=True)
        with pytest.raises(StillhouseError) as caught:
            store(data, **options)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["upload.exe"], "a refusal leaves nothing behind"
        assert str(tmp_path) not in str(caught.value)
        json.dumps(caught.value.problem().model_dump(mode="json")).encode("ascii")
        caught.value.problem().model_dump_json().encode("utf-8")
        return caught.value

    return read


def first(error: StillhouseError) -> tuple[str, str]:
    """Pointer and code of an error about one place."""
    return error.errors[0].pointer, error.errors[0].code
