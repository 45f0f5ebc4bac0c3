"""Real data as the ingest package stores it: scikit-learn's handwritten digits, split once and for all."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from stillhouse.spec import SPLITS, DataFacts, DataReport, JobSpec, Limits, StoredDataset, resolve


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bf16_everywhere() -> Iterator[None]:
    """bf16 is bf16 in the tests of a module, worked out slowly on a machine without instructions for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
        yield


def store(path: Path, x: np.ndarray, y: np.ndarray, split: np.ndarray, classes: tuple[str, ...], **report: int) -> Path:
    """Write a stored dataset file."""
    image = x.ndim == 4
    facts = DataFacts(
        task="image-classification" if image else "tabular-classification",
        shape=x.shape[1:],
        dtype="uint8" if image else "float32",
        classes=classes,
        rows={name: int((split == i).sum()) for i, name in enumerate(SPLITS)},
        unlabelled=int((y < 0).sum()),
    )
    counts = {
        name: {c: int(((split == i) & (y == k)).sum()) for k, c in enumerate(classes)} for i, name in enumerate(SPLITS)
    }
    found = DataReport(rows_read=len(x), rows_kept=len(x), rows_dropped=0, class_counts=counts, **report)
    header = StoredDataset(facts=facts, report=found).model_dump_json()
    save_file({"x": x, "y": y.astype(np.int64), "split": split.astype(np.uint8)}, path, {"stillhouse": header})
    return path


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """1,797 images uint8 [N, 1, 8, 8] of 0..16, labels, and a stratified 70/15/15 split."""
    x, y = load_digits(return_X_y=True)
    rows = np.arange(len(y))
    _train, rest = train_test_split(rows, test_size=0.3, stratify=y, random_state=0)
    validation, test = train_test_split(rest, test_size=0.5, stratify=y[rest], random_state=0)
    split = np.zeros(len(y), np.uint8)
    split[validation], split[test] = 1, 2
    return x.reshape(-1, 1, 8, 8).astype(np.uint8), y, split


@pytest.fixture(scope="session")
def digits_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as one stored dataset file."""
    x, y, split = digits()
    return store(tmp_path_factory.mktemp("data") / "digits.safetensors", x, y, split, tuple("0123456789"))


def resolved(path: Path, **spec: object) -> JobSpec:
    """A resolved spec for the stored dataset at `path`, with a small teacher trained in the job unless given."""
    from distill.data import read_dataset

    given = {
        "dataset": {"builtin": "digits"},
        "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [64]}, "epochs": 5}},
        "student": {"name": "mlp", "hidden": [16]},
        "training": {"epochs": 3},
        "evaluation": {"baseline": False},
        "export": {"onnx": False},
        **spec,
    }
    return resolve(JobSpec.model_validate(given), read_dataset(path).facts, Limits())
