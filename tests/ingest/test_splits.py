"""Who trains, validates and tests: complete, stratified, repeatable, and never torn between equal rows."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ingest.splits import TEST, TRAIN, VALIDATION, assign_splits
from stillhouse.spec.errors import InvalidData
from stillhouse.spec.upload import IngestOptions
from tests.ingest.conftest import Refuse, Store, first
from tests.ingest.making import csv

_shares = st.sampled_from([0.0, 0.05, 0.15, 0.2, 0.3])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**31 - 1), validation=_shares, test=_shares.filter(bool))
def test_made_splits_are_complete_grouped_and_hold_every_class(
    data: st.DataObject, seed: int, validation: float, test: float
) -> None:
    labels = np.array(data.draw(st.lists(st.integers(0, 3), min_size=8, max_size=120)), np.int64)
    groups = np.array(data.draw(st.lists(st.integers(0, 60), min_size=len(labels), max_size=len(labels))), np.int64)
    groups = np.unique(groups * 4 + labels, return_inverse=True)[1]  # equal rows agree on their label here
    wanted = {TRAIN, TEST} | ({VALIDATION} if validation else set())
    assume(all(len(set(groups[labels == c])) >= len(wanted) for c in set(labels.tolist())))
    options = IngestOptions(validation=validation, test=test, seed=seed)
    of_row = assign_splits(labels, groups, None, ("a", "b", "c", "d"), options).of_row
    assert of_row.shape == labels.shape
    assert set(of_row.tolist()) <= wanted
    for group in set(groups.tolist()):
        assert len(set(of_row[groups == group].tolist())) == 1, "equal rows stay together"
    for c in set(labels.tolist()):
        assert set(of_row[labels == c].tolist()) == wanted, "every class is in every split"
    again = assign_splits(labels, groups, None, ("a", "b", "c", "d"), options).of_row
    np.testing.assert_array_equal(again, of_row)


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(10, 300), min_size=2, max_size=4), validation=_shares, test=_shares.filter(bool))
def test_different_rows_are_stratified_to_the_row(sizes: list[int], validation: float, test: float) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    options = IngestOptions(validation=validation, test=test)
    of_row = assign_splits(labels, np.arange(len(labels)), None, tuple("abcd"), options).of_row
    for c, size in enumerate(sizes):
        counts = np.bincount(of_row[labels == c], minlength=3)
        assert counts[TEST] == max(1, round(size * test))
        assert counts[VALIDATION] == (max(1, round(size * validation)) if validation else 0)


def test_large_groups_do_not_upset_the_shares() -> None:
    labels = np.zeros(1000, np.int64)
    labels[500:] = 1
    groups = np.concatenate([np.repeat(np.arange(50), 10), np.arange(50, 550)])
    of_row = assign_splits(labels, groups, None, ("a", "b"), IngestOptions()).of_row
    for c in (0, 1):
        counts = np.bincount(of_row[labels == c], minlength=3)
        assert abs(counts[TEST] - 75) <= 10
        assert abs(counts[VALIDATION] - 75) <= 10


def test_another_seed_gives_another_split() -> None:
    labels = np.arange(200) % 2
    draws = [assign_splits(labels, np.arange(200), None, ("a", "b"), IngestOptions(seed=s)).of_row for s in (0, 1)]
    assert (draws[0] != draws[1]).any()


def test_rows_of_a_split_do_not_cluster_by_their_place() -> None:
    labels = np.zeros(3000, np.int64)
    labels[1:] = np.arange(2999) % 2
    tests = np.flatnonzero(assign_splits(labels, np.arange(3000), None, ("a", "b"), IngestOptions()).of_row == TEST)
    thirds = np.bincount(tests // 1000, minlength=3)
    assert thirds.min() > 100


def test_a_class_too_small_for_every_split_is_named(refuse: Refuse) -> None:
    rows = [f"{i},{i % 2}" for i in range(30)] + ["50,rare", "51,rare", "51,rare"]
    error = refuse(csv("a,label", rows))
    assert first(error) == ("/file/classes/rare", "class_too_small")
    assert "2 different rows, 3 are needed" in error.errors[0].detail


def test_without_validation_two_rows_of_a_class_suffice(store: Store) -> None:
    rows = [f"{i},{i % 2}" for i in range(30)] + ["50,rare", "51,rare"]
    stored = store(csv("a,label", rows), validation=0)
    assert stored.facts.rows["validation"] == 0
    assert {s for s, label in zip(stored.splits, stored.labels, strict=True) if label == "rare"} == {"train", "test"}


def test_equal_rows_of_an_upload_never_meet_across_made_splits(store: Store) -> None:
    rows = [f"{i % 37},{i % 5},{i % 37 % 2}" for i in range(1000)] + [f"{-(i % 3)}.0,0,1" for i in range(50)]
    stored = store(csv("a,b,label", [*rows, "-0,0,1", "0,0,1"]))
    assert not np.signbit(stored.x[-2:]).any(), "-0 equals 0"
    where: dict[bytes, set[int]] = {}
    for x, split in zip(stored.x, stored.split, strict=True):
        where.setdefault(x.tobytes(), set()).add(int(split))
    assert all(len(splits) == 1 for splits in where.values())
    assert stored.report.duplicates_across_splits == 0
    different = {(x.tobytes(), int(y)) for x, y in zip(stored.x, stored.y, strict=True)}
    assert stored.report.duplicates == len(stored.x) - len(different)


def test_leaks_of_given_splits_are_counted_and_noted(store: Store) -> None:
    rows = [f"{i},train,{i % 2}" for i in range(40)] + [f"{i},test,{i % 2}" for i in range(30, 50)]
    stored = store(csv("a,split,label", rows), split_column="split", validation=0)
    assert stored.report.duplicates_across_splits == 10
    assert any(note.startswith("10 validation or test rows also stand in the training") for note in stored.report.notes)


@pytest.mark.parametrize(("given", "drawn"), [("test", "validation"), ("validation", "test")])
def test_a_missing_split_is_drawn_from_the_training_rows(store: Store, given: str, drawn: str) -> None:
    rows = [f"{i},train,{i % 2}" for i in range(200)] + [f"{i},{given},{i % 2}" for i in range(200, 250)]
    stored = store(csv("a,split,label", rows), split_column="split")
    assert stored.splits[200:] == [given] * 50, "what was given stays"
    assert stored.splits[:200].count(drawn) == 30
    assert any(drawn in note and "drawn from the training rows" in note for note in stored.report.notes)


def test_training_rows_alone_are_split_like_any_other(store: Store) -> None:
    rows = [f"{i},train,{i % 2}" for i in range(200)]
    stored = store(csv("a,split,label", rows), split_column="split")
    assert stored.facts.rows == {"train": 140, "validation": 30, "test": 30}


def test_an_upload_without_training_rows_is_refused(refuse: Refuse) -> None:
    rows = [f"{i},test,{i % 2}" for i in range(30)]
    assert first(refuse(csv("a,split,label", rows), split_column="split")) == ("/file", "no_train_split")


def test_a_class_that_is_only_tested_is_refused_by_name(refuse: Refuse) -> None:
    rows = [f"{i},train,{i % 2}" for i in range(30)] + ["50,test,0", "51,test,ghost"]
    error = refuse(csv("a,split,label", rows), split_column="split")
    assert first(error) == ("/file/classes/ghost", "class_not_in_train")


def test_a_class_missing_from_a_given_test_split_is_noted(store: Store) -> None:
    rows = [f"{i},train,{i % 3}" for i in range(60)] + [f"{i},test,{i % 2}" for i in range(60, 80)]
    notes = store(csv("a,split,label", rows), split_column="split").report.notes
    assert any("test split has no row of '2'" in note for note in notes)


@pytest.mark.parametrize(
    "options",
    [{"test": 0}, {"validation": 0.6, "test": 0.4}, {"test": float("nan")}, {"seed": -1}, {"bad_rows": "keep"},
     {"label": "a", "ignore": ("a",)}, {"label": "a", "split_column": "a"}, {"image_size": 0}, {"unknown": 1}],
)  # fmt: skip
def test_contradictory_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        IngestOptions.model_validate(options)


def test_a_group_led_by_another_class_cannot_rob_a_class_of_its_training_rows() -> None:
    labels, groups = np.zeros(20, np.int64), np.arange(20) // 2
    labels[1] = 1  # the only row of its class, equal to one of the other
    outcomes = [_place_or_code(labels, groups, seed) for seed in range(30)]
    assert set(outcomes) == {TRAIN, "class_not_in_train"}


def _place_or_code(labels: NDArray[np.int64], groups: NDArray[np.int64], seed: int) -> int | str:
    try:
        return int(assign_splits(labels, groups, None, ("a", "b"), IngestOptions(seed=seed)).of_row[1])
    except InvalidData as error:
        return error.errors[0].code
