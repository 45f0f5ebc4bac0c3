"""Reading a stored dataset, measuring it, and views of its images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

from distill.augment import moved, view
from distill.data import Dataset, measure, read_dataset
from stillhouse.spec import StoredDataset
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.training import Augmentation
from tests.distill.conftest import digits, store


@pytest.fixture
def data(digits_file: Path) -> Dataset:
    return read_dataset(digits_file)


def test_the_digits_come_back_as_they_were_stored(data: Dataset) -> None:
    x, y, split = digits()
    assert torch.equal(data.x, torch.from_numpy(x))
    assert torch.equal(data.y, torch.from_numpy(y))
    assert [len(data.rows[name]) for name in ("train", "validation", "test")] == [1257, 270, 270]
    assert torch.equal(data.rows["test"], torch.from_numpy(np.flatnonzero(split == 2)))
    assert data.inputs(data.rows["test"][:3]).dtype == torch.float32


def test_chunks_cover_a_split_in_order_and_stay_small(data: Dataset) -> None:
    chunks = data.chunks("train", most=500)
    assert [len(c) for c in chunks] == [500, 500, 257]
    assert torch.equal(torch.cat(chunks), data.rows["train"])


def test_an_empty_file_and_a_cut_file_are_named_as_unreadable(tmp_path: Path, digits_file: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "cut").write_bytes(digits_file.read_bytes()[:-100])
    for name in ("empty", "cut", "absent"):
        with pytest.raises(JobFailure) as failure:
            read_dataset(tmp_path / name)
        assert failure.value.code == "dataset_unusable"
        assert str(tmp_path) not in failure.value.detail


def test_a_safetensors_file_without_our_header_is_not_a_dataset(tmp_path: Path) -> None:
    save_file({"x": np.zeros((2, 3), np.float32)}, tmp_path / "other")
    with pytest.raises(JobFailure, match="not a dataset file"):
        read_dataset(tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"y": np.full(1797, 10)}, "label lies outside"),
        ({"y": np.full(1797, -1)}, "label lies outside"),
        ({"y": np.zeros(1796, np.int64)}, "shape"),
        ({"x": np.zeros((1797, 1, 8, 9), np.uint8)}, "shape"),
        ({"x": np.zeros((1797, 1, 8, 8), np.float32)}, "x is torch.float32"),
        ({"split": np.zeros(1797, np.uint8)}, "splits hold"),
        ({"split": np.full(1797, 3, np.uint8)}, "splits hold"),
    ],
)
def test_tensors_that_contradict_the_header_are_refused(
    tmp_path: Path, digits_file: Path, change: dict[str, np.ndarray], found: str
) -> None:
    tensors = {**load_file(digits_file), **change}
    save_file(tensors, tmp_path / "wrong", {"stillhouse": _header(digits_file)})
    with pytest.raises(JobFailure, match=found) as failure:
        read_dataset(tmp_path / "wrong")
    assert failure.value.code == "dataset_unusable"


def test_a_table_with_a_nan_is_refused(tmp_path: Path) -> None:
    x = np.ones((6, 2), np.float32)
    x[4, 1] = np.nan
    path = store(tmp_path / "t", x, np.array([0, 1] * 3), np.array([0, 0, 1, 1, 2, 2]), ("a", "b"))
    with pytest.raises(JobFailure, match="NaN"):
        read_dataset(path)


def test_the_statistics_are_those_of_the_training_split_alone(data: Dataset) -> None:
    x, _, split = digits()
    train = x[split == 0].astype(np.float64)
    found = measure(data)
    assert found.mean == pytest.approx([train.mean()], rel=1e-6)
    assert found.std == pytest.approx([train.std()], rel=1e-6)
    assert (found.low, found.high) == (0, 16)


def test_a_table_is_measured_per_column_and_a_column_that_only_rounds_divides_by_one(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    x = stream.normal(loc=[0, 1e6, 5, -3], scale=[1, 10, 0, 1e-3], size=(900, 4)).astype(np.float32)
    x[:, 2] = np.where(np.arange(900) % 2, 0.1, np.nextafter(np.float32(0.1), 1))  # one rounding step apart
    split = np.arange(900) % 3
    path = store(tmp_path / "t", x, np.arange(900) % 2, split, ("a", "b"))
    found = measure(read_dataset(path))
    train = x[split == 0].astype(np.float64)
    np.testing.assert_allclose(found.mean, train.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.std, [*train[:, :2].std(0), 1.0, train[:, 3].std()], rtol=1e-4)


def test_images_are_measured_per_channel(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    x = stream.integers(0, 256, size=(30, 3, 4, 5), dtype=np.uint8)
    x[:, 1] = 7
    path = store(tmp_path / "i", x, np.arange(30) % 2, np.arange(30) % 3, ("a", "b"))
    found = measure(read_dataset(path))
    train = x[np.arange(30) % 3 == 0].astype(np.float64)
    np.testing.assert_allclose(found.mean, train.mean((0, 2, 3)), rtol=1e-6)
    assert found.std[1] == 1.0
    np.testing.assert_allclose(found.std[::2], train.std((0, 2, 3))[::2], rtol=1e-6)


def _by_hand(image: np.ndarray, down: int, right: int, flip: bool) -> np.ndarray:
    out = np.zeros_like(image)
    source = image[:, :, ::-1] if flip else image
    _, height, width = image.shape
    for i in range(height):
        for j in range(width):
            if 0 <= i - down < height and 0 <= j - right < width:
                out[:, i, j] = source[:, i - down, j - right]
    return out


def test_shifts_and_flips_move_each_image_by_its_own_draw() -> None:
    stream = np.random.default_rng(0)
    images = stream.integers(1, 256, size=(40, 3, 5, 7), dtype=np.uint8)
    shift = stream.integers(-2, 3, size=(40, 2))
    flip = stream.random(40) < 0.5
    found = moved(torch.from_numpy(images), torch.from_numpy(shift), torch.from_numpy(flip), pad=2)
    expected = np.stack([_by_hand(x, *map(int, s), bool(f)) for x, s, f in zip(images, shift, flip, strict=True)])
    np.testing.assert_array_equal(found.numpy(), expected)
    assert found.dtype == torch.uint8


def _views(data: Dataset, augmentation: Augmentation, epoch: int, batch: Tensor, seed: int = 0) -> Tensor:
    return view(data, augmentation, seed, "student", epoch)(batch, data.rows["train"][batch])


def test_a_view_depends_on_seed_epoch_and_row_but_not_on_the_batch(data: Dataset) -> None:
    augmentation = Augmentation(crop_padding=1, horizontal_flip=True)
    whole = _views(data, augmentation, 3, torch.arange(200))
    assert torch.equal(_views(data, augmentation, 3, torch.tensor([150, 7])), whole[[150, 7]])
    assert not torch.equal(_views(data, augmentation, 4, torch.arange(200)), whole)
    assert not torch.equal(_views(data, augmentation, 3, torch.arange(200), seed=1), whole)


def test_every_shift_and_both_sides_occur(data: Dataset) -> None:
    batch = torch.arange(1000)
    plain = data.inputs(data.rows["train"][batch])
    flipped = _views(data, Augmentation(horizontal_flip=True), 0, batch)
    mirrored = (flipped == plain.flip(3)).flatten(1).all(1)
    kept = (flipped == plain).flatten(1).all(1)
    assert (mirrored | kept).all()
    assert 0.4 < mirrored.double().mean() < 0.6
    shifted = _views(data, Augmentation(crop_padding=1), 0, batch)
    same = (shifted == plain).flatten(1).all(1).double().mean()
    assert 0.05 < same < 0.2  # one of nine shifts


def test_without_augmentation_the_rows_themselves_are_seen(data: Dataset) -> None:
    batch = torch.tensor([5, 1])
    assert torch.equal(_views(data, Augmentation(), 9, batch), data.x[data.rows["train"][batch]].float())


def _header(path: Path) -> str:
    return StoredDataset(facts=read_dataset(path).facts, report=read_dataset(path).report).model_dump_json()
