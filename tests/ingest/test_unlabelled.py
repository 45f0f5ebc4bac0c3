"""Rows without a label: refused, unless they are kept for training on the teacher's outputs alone."""

import numpy as np
import pytest

from tests.ingest.conftest import Refuse, Store, first
from tests.ingest.making import archive, csv, good_rows, image, npz, parquet, pets, pixels


def _rows(n: int, every: int) -> list[str]:
    """Of n rows each `every`th has no label."""
    return [row if i % every else row.rsplit(",", 1)[0] + "," for i, row in enumerate(good_rows(n))]


def test_a_row_without_a_label_is_refused_and_the_hint_says_how_to_keep_it(refuse: Refuse) -> None:
    error = refuse(csv("a,b,label", _rows(60, 4)))
    assert first(error) == ("/file/rows/1", "empty_label")
    assert "unlabelled=keep" in (error.hint or "")


def test_kept_rows_of_a_table_train_and_are_counted_apart(store: Store) -> None:
    stored = store(csv("a,b,label", _rows(60, 4)), unlabelled="keep")
    assert stored.y.tolist().count(-1) == 15
    assert set(stored.split[stored.y == -1].tolist()) == {0}
    assert stored.facts.unlabelled == stored.report.unlabelled == 15
    assert stored.facts.labelled == stored.facts.rows["train"] - 15
    assert stored.facts.classes == ("no", "yes")
    counts = stored.report.class_counts
    assert sum(sum(split.values()) for split in counts.values()) == 45
    assert counts["train"] == {
        name: int(((stored.split == 0) & (stored.y == k)).sum()) for k, name in enumerate(("no", "yes"))
    }
    assert any("15 training rows have no label" in note for note in stored.report.notes)


def test_drawn_splits_take_their_share_of_the_labelled_rows(store: Store) -> None:
    stored = store(csv("a,b,label", _rows(300, 3)), unlabelled="keep", validation=0.25, test=0.25)
    assert stored.facts.rows == {"train": 200, "validation": 50, "test": 50}


def test_a_row_equal_to_an_unlabelled_one_never_leaves_the_training_split(store: Store) -> None:
    rows = good_rows(60)
    twins = [row.rsplit(",", 1)[0] + "," for row in rows[:30]]
    for seed in range(3):
        stored = store(csv("a,b,label", rows + twins), unlabelled="keep", seed=seed)
        assert set(stored.split[:30].tolist()) == {0}
        assert stored.report.duplicates_across_splits == 0
        assert not any("different label" in note for note in stored.report.notes), "no label contradicts none"


def test_a_validation_or_test_row_needs_its_label_all_the_same(refuse: Refuse) -> None:
    rows = [f"{i},{'ab'[i % 2] if i != 5 else ''},{'train' if i < 4 else 'test'}" for i in range(10)]
    error = refuse(csv("x,label,part", rows), unlabelled="keep", split_column="part")
    assert first(error) == ("/file/rows/6", "empty_label")
    assert "only a training row" in error.errors[0].detail


def test_an_unlabelled_row_with_a_broken_cell_is_still_a_bad_row(refuse: Refuse) -> None:
    rows = [f"{i},{'ab'[i % 2] if i else ''}" for i in range(30)]
    rows[0] = "inf,"
    assert first(refuse(csv("x,label", rows), unlabelled="keep")) == ("/file/rows/1", "not_finite")


def test_parquet_tables_keep_rows_with_a_null_label(store: Store) -> None:
    label = [None if i % 3 == 0 else i % 2 for i in range(60)]
    stored = store(parquet({"a": list(range(60)), "label": label}), unlabelled="keep")
    assert (stored.y == -1).sum() == stored.facts.unlabelled == 20
    assert stored.facts.classes == ("0", "1")


@pytest.mark.parametrize("missing", [-1, -1.0, float("nan"), "-1", ""])
def test_minus_one_and_nan_in_the_y_of_an_npz_mean_no_label(store: Store, missing: object) -> None:
    y = np.array([missing if i % 3 == 0 else type(missing)(i % 2) for i in range(60)])  # type: ignore[call-arg]
    stored = store(npz(x=pixels(60, 4, 4), y=y), unlabelled="keep")
    assert stored.facts.unlabelled == 20
    assert stored.facts.classes == ("0", "1")
    assert stored.y[stored.split > 0].min() >= 0


def test_named_classes_of_an_npz_keep_their_order_beside_unlabelled_rows(store: Store, refuse: Refuse) -> None:
    y = np.array([(-1, 0, 1)[i % 3] for i in range(60)])
    data = npz(x=pixels(60, 4, 4), y=y, classes=np.array(["zebra", "ape"]))
    stored = store(data, unlabelled="keep")
    assert stored.facts.classes == ("zebra", "ape")
    assert stored.facts.unlabelled == 20
    assert first(refuse(data))[1] == "label_out_of_range"


def test_without_the_option_minus_one_stays_a_class(store: Store) -> None:
    stored = store(npz(x=pixels(60, 4, 4), y=np.array([-1, 1] * 30)))
    assert stored.facts.classes == ("-1", "1")
    assert stored.facts.unlabelled == 0


def test_an_npz_test_split_needs_every_label(refuse: Refuse) -> None:
    arrays = {
        "x_train": pixels(20, 4, 4), "y_train": np.array([0, 1] * 10),
        "x_test": pixels(4, 4, 4, seed=1), "y_test": np.array([0, 1, -1, 1]),
    }  # fmt: skip
    assert first(refuse(npz(**arrays), unlabelled="keep")) == ("/file/arrays/x_test/2", "empty_label")


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled"])
def test_a_folder_of_that_name_holds_images_without_a_label(store: Store, refuse: Refuse, name: str) -> None:
    extra = [(f"{name}/{i}.png", image(pixels(6, 5, 3, seed=900 + i))) for i in range(7)]
    stored = store(archive(pets(8) + extra), unlabelled="keep")
    assert stored.facts.classes == ("cat", "dog")
    assert stored.facts.unlabelled == (stored.y == -1).sum() == 7
    error = refuse(archive(pets(8) + extra))
    assert first(error) == (f"/file/members/{name}~10.png", "empty_label")
    assert store(archive(pets(8) + extra), bad_rows="drop").report.rows_dropped == 7


def test_beside_split_folders_unlabelled_images_belong_to_train(store: Store, refuse: Refuse) -> None:
    splits = pets(4, prefix="train/") + pets(2, prefix="test/")
    extra = [(f"unlabelled/{i}.png", image(pixels(6, 5, 3, seed=900 + i))) for i in range(3)]
    below = [(f"train/unlabelled/{i}.png", image(pixels(6, 5, 3, seed=950 + i))) for i in range(2)]
    stored = store(archive(splits + extra + below), unlabelled="keep", validation=0)
    assert stored.facts.rows == {"train": 13, "validation": 0, "test": 4}
    assert stored.facts.unlabelled == 5
    wrong = [("test/unlabelled/0.png", image(pixels(6, 5, 3, seed=990)))]
    error = refuse(archive(splits + wrong), unlabelled="keep", validation=0)
    assert first(error) == ("/file/members/test~1unlabelled~10.png", "empty_label")


def test_nothing_but_unlabelled_rows_is_no_dataset(refuse: Refuse) -> None:
    error = refuse(csv("x,label", [f"{i}," for i in range(30)]), unlabelled="keep")
    assert first(error) == ("/file/columns/label", "one_class")
