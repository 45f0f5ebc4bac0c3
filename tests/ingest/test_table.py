"""What columns, labels and splits of a table turn out to be."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stillhouse.spec.errors import TooLarge
from stillhouse.spec.limits import Limits
from tests.ingest.conftest import Refuse, Store, first
from tests.ingest.making import csv, good_rows


@pytest.mark.parametrize("name", ["label", "target", "class", "y", "Label", "TARGET"])
def test_the_label_column_is_found_by_its_usual_names(store: Store, name: str) -> None:
    assert store(csv(f"a,b,{name}", good_rows())).facts.classes == ("no", "yes")


def test_another_label_column_can_be_named(store: Store) -> None:
    stored = store(csv("a,label,kind", good_rows()), label="kind")
    assert stored.facts.classes == ("no", "yes")
    assert [f.name for f in stored.facts.features] == ["a", "label"]


def test_of_two_columns_that_differ_in_case_the_one_of_the_usual_name_is_the_label(store: Store) -> None:
    stored = store(csv("a,Label,label", good_rows()))
    assert stored.facts.classes == ("no", "yes")
    assert [f.name for f in stored.facts.features] == ["a", "Label"]


@pytest.mark.parametrize("option", ["label", "split_column", "ignore"])
def test_an_option_names_a_column_whichever_way_its_accents_are_written(store: Store, option: str) -> None:
    rows = [f"{i},{'train' if i % 3 else 'test'},{'no' if i % 2 else 'yes'}" for i in range(30)]
    names = {"label": "a,s,e\u0301tat", "split_column": "a,e\u0301tat,label", "ignore": "a,e\u0301tat,label"}
    stored = store(csv(names[option], rows), **{option: ("\u00e9tat",) if option == "ignore" else "\u00e9tat"})
    assert stored.facts.classes == ("no", "yes")
    assert len(stored.facts.features) == (2 if option == "label" else 1)


def test_two_columns_that_look_alike_are_two_of_one_name(refuse: Refuse) -> None:
    error = refuse(csv("e\u0301,\u00e9,label", good_rows()))
    assert first(error)[1] == "duplicate_header"


def test_what_is_ignored_or_says_the_split_is_not_taken_for_the_label(store: Store) -> None:
    assert store(csv("a,Label,label", good_rows()), ignore=("Label",)).facts.classes == ("no", "yes")
    rows = [f"{row},{'test' if i < 8 else 'train'}" for i, row in enumerate(good_rows())]
    stored = store(csv("a,b,target,label", rows), split_column="label")
    assert stored.facts.classes == ("no", "yes")
    assert stored.splits[:9] == ["test"] * 8 + ["train"]


def test_a_missing_label_column_lists_what_is_there(refuse: Refuse) -> None:
    error = refuse(csv("a,b,c", good_rows()))
    assert first(error) == ("?label", "no_label")
    assert "'a', 'b', 'c'" in error.detail


@pytest.mark.parametrize("options", [{"label": "z"}, {"split_column": "z"}, {"ignore": ("a", "z")}])
def test_an_option_that_names_no_column_is_refused(refuse: Refuse, options: dict[str, object]) -> None:
    error = refuse(csv("a,b,label", good_rows()), **options)
    assert first(error) == ("?" + next(iter(options)), "no_such_column")


def test_ignored_columns_are_left_out_whatever_they_hold(store: Store) -> None:
    rows = [f"id-{i},{row}" for i, row in enumerate(good_rows(300))]
    stored = store(csv("id,a,b,label", rows), ignore=("id",))
    assert [f.name for f in stored.facts.features] == ["a", "b"]


def test_no_column_left_is_refused(refuse: Refuse) -> None:
    assert first(refuse(csv("a,b,label", good_rows()), ignore=("a", "b")))[1] == "no_features"


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "9", "1"], ("1", "9", "10")),
        (["-1", "1", "0"], ("-1", "0", "1")),
        (["1.0", "2.0", "2"], ("1", "2")),
        (["010", "9", "1"], ("010", "1", "9")),
        (["b", "a", "10"], ("10", "a", "b")),
        (["true", "false", "true"], ("false", "true")),
        ([" a", "a ", "b"], ("a", "b")),
    ],
)
def test_whole_numbers_sort_as_numbers_and_the_rest_as_text(
    store: Store, labels: list[str], classes: tuple[str, ...]
) -> None:
    stored = store(csv("a,label", [f"{i},{labels[i % 3]}" for i in range(30)]))
    assert stored.facts.classes == classes
    assert stored.labels[:3] == [t.strip().removesuffix(".0") for t in labels]


def test_labels_that_look_alike_are_one_class(store: Store) -> None:
    labels = ["cafe\u0301", "caf\u00e9", "b"]
    stored = store(csv("a,label", [f"{i},{labels[i % 3]}" for i in range(30)]))
    assert stored.facts.classes == ("b", "caf\u00e9")
    assert stored.labels[:3] == ["caf\u00e9", "caf\u00e9", "b"]


def test_measurements_are_no_labels(refuse: Refuse) -> None:
    error = refuse(csv("a,label", [f"{i},{i / 4}" for i in range(30)]))
    assert first(error) == ("/file/columns/label", "fractional_labels")


def test_one_class_is_refused(refuse: Refuse) -> None:
    error = refuse(csv("a,label", [f"{i},yes" for i in range(30)]))
    assert first(error) == ("/file/columns/label", "one_class")


def test_too_many_classes_are_refused(refuse: Refuse) -> None:
    error = refuse(csv("a,label", [f"1,c{i}" for i in range(30)]), limits=Limits(max_classes=29))
    assert isinstance(error, TooLarge)
    assert first(error) == ("/file/columns/label", "too_many_classes")


def test_free_text_is_refused_by_the_name_of_its_column(refuse: Refuse) -> None:
    rows = [f"{i},text {i},day {i},{i % 2}" for i in range(300)]
    error = refuse(csv("a,note,day,label", rows))
    assert [(e.pointer, e.code) for e in error.errors] == [
        ("/file/columns/note", "too_many_categories"),
        ("/file/columns/day", "too_many_categories"),
    ]
    assert "ignore" in (error.hint or "")


@pytest.mark.parametrize("form", ["{},5", "1.23{},5", "−{}", "1 00{}", "1'00{}", "1_00{}", "٣{}"])
def test_numbers_in_a_form_that_is_not_read_are_no_categories(refuse: Refuse, form: str) -> None:
    rows = [f"{i};{form.format(i % 10) if i % 4 else i};{'no' if i % 2 else 'yes'}" for i in range(40)]
    error = refuse(csv("a;b;label", rows))
    assert first(error) == ("/file/columns/b", "not_a_number")
    assert repr(form.format(1)) in error.detail
    # That many would be too many categories, which is not what is wrong with them.
    many = [f"{i};{i},5;{'no' if i % 2 else 'yes'}" for i in range(40)]
    assert first(refuse(csv("a;b;label", many), limits=Limits(max_categories=7)))[1] == "not_a_number"


@pytest.mark.parametrize("form", ["1.2.{}", "2024-01-0{}", "10{}-110", "192.168.0.{}", "0x1{}", "{}+", "v{}"])
def test_codes_of_digits_are_categories(store: Store, form: str) -> None:
    rows = [f"{i},{form.format(i % 10)},{'no' if i % 2 else 'yes'}" for i in range(40)]
    assert store(csv("a,b,label", rows)).facts.features[1].width == 10


def test_categories_are_limited_exactly(store: Store, refuse: Refuse) -> None:
    rows = [f"{i},v{i % 7},{i % 2}" for i in range(70)]
    assert store(csv("a,b,label", rows), limits=Limits(max_categories=7)).facts.features[1].width == 7
    assert first(refuse(csv("a,b,label", rows), limits=Limits(max_categories=6)))[1] == "too_many_categories"


def test_inputs_made_of_categories_are_limited(refuse: Refuse) -> None:
    rows = [f"{i},v{i % 7},{i % 2}" for i in range(70)]
    error = refuse(csv("a,b,label", rows), limits=Limits(max_columns=7))
    assert first(error) == ("/file", "too_many_columns")


def test_few_values_that_are_partly_text_are_categories(store: Store) -> None:
    doors = ["2", "3", "4", "5more"]
    stored = store(csv("a,doors,label", [f"{i},{doors[i % 4]},{i % 2}" for i in range(80)]))
    assert stored.facts.features[1].categories == ("2", "3", "4", "5more")
    assert "Columns that mix numbers and text were read as categories: 'doors'." in stored.report.notes


def test_stray_text_among_measurements_names_the_first_rows(refuse: Refuse) -> None:
    rows = [f"{'n/a' if i in (11, 25) else i / 7},{i % 2}" for i in range(300)]
    error = refuse(csv("a,label", rows))
    assert [(e.pointer, e.code) for e in error.errors] == [
        ("/file/rows/12", "not_a_number"),
        ("/file/rows/26", "not_a_number"),
    ]
    assert "'n/a'" in error.errors[0].detail


def test_text_that_turns_up_late_still_makes_categories(store: Store) -> None:
    rows = [f"{i % 3 if i < 20_000 else 'abc'[i % 3]},{i},{i % 2}" for i in range(40_000)]
    stored = store(csv("a,b,label", rows))
    assert stored.facts.features[0].categories == ("0", "1", "2", "a", "b", "c")
    np.testing.assert_array_equal(stored.x[:, :6].argmax(axis=1), [i % 3 + 3 * (i >= 20_000) for i in range(40_000)])


def test_a_column_without_values_is_refused_by_name(refuse: Refuse) -> None:
    error = refuse(csv("a,b,label", [f"{i},,{i % 2}" for i in range(30)]))
    assert first(error) == ("/file/columns/b", "empty_column")


def test_categories_of_dropped_rows_take_no_input(store: Store) -> None:
    rows = [*good_rows(), "x,green,no", "1,green,"]
    stored = store(csv("a,b,label", rows), bad_rows="drop")
    assert stored.facts.features[1].categories == ("blue", "red")
    assert stored.x.shape[1] == 3


def test_a_split_column_is_kept_to(store: Store) -> None:
    words = ["train", "Train", "val", "validation", "valid", "TEST", "test", "train"]
    rows = [f"{i},{words[i % 8]},{i // 8 % 2}" for i in range(64)]
    stored = store(csv("a,part,label", rows), split_column="part")
    aliases = {"val": "validation", "valid": "validation"}
    assert stored.splits == [aliases.get(words[i % 8].lower(), words[i % 8].lower()) for i in range(64)]
    assert [f.name for f in stored.facts.features] == ["a"]


def test_a_split_value_that_is_none_of_the_three_is_a_bad_row(refuse: Refuse) -> None:
    rows = [f"{i},train,{i % 2}" for i in range(30)] + ["1,tset,0", "2,,1"]
    error = refuse(csv("a,part,label", rows), split_column="part")
    assert [(e.pointer, e.code) for e in error.errors] == [
        ("/file/rows/31", "bad_split"),
        ("/file/rows/32", "bad_split"),
    ]


def test_a_split_column_that_is_something_else_is_refused(refuse: Refuse) -> None:
    rows = [f"{i},name {i},{i % 2}" for i in range(300)]
    assert first(refuse(csv("a,part,label", rows), split_column="part")) == ("?split_column", "bad_split")


def test_what_a_careful_person_wants_to_know_is_noted(store: Store) -> None:
    rows = [f"{i},7,{i + 33_554_433},{'rare' if i % 25 == 0 else 'often'}" for i in range(200)]
    rows += ["1,7,33554434,rare", "1,7,33554434,often", "2,7,33554435,often"]
    report = store(csv("a,constant,id,label", rows)).report
    assert report.duplicates == 2
    notes = " ".join(report.notes)
    assert "far from balanced: 194 rows of 'often', 9 of 'rare'" in notes
    assert "Constant columns, which teach nothing: 'constant'" in notes
    assert "32-bit floats round (ids, times?): 'id'" in notes
    assert "3 rows equal another row that has a different label" in notes


def test_the_options_of_images_do_not_apply_to_tables(refuse: Refuse) -> None:
    assert first(refuse(csv("a,b,label", good_rows()), image_size=8)) == ("?image_size", "option_does_not_apply")


_numbers = st.floats(width=32, allow_nan=False, allow_infinity=False)
_words = st.text("abcäß, \"'", min_size=1, max_size=5).map(lambda s: f"w{s}w")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    cells=st.lists(st.tuples(_numbers, _words, st.sampled_from(["0", "1"])), min_size=1, max_size=20),
    delimiter=st.sampled_from(",;\t"),
)
def test_a_valid_table_comes_back_as_it_went_in(
    store: Store, cells: list[tuple[float, str, str]], delimiter: str
) -> None:
    # Two classes with three different rows each make any table valid.
    rows = [*cells, *((1e6 + i, "base", str(i % 2)) for i in range(6))]
    lines = [delimiter.join(['"' + c.replace('"', '""') + '"' for c in map(str, row)]) for row in rows]
    stored = store(csv(delimiter.join(["a", "b", "label"]), lines))
    np.testing.assert_array_equal(stored.x[:, 0], np.array([row[0] for row in rows], np.float32))
    kinds = stored.facts.features[1].categories
    assert [kinds[code] for code in stored.x[:, 1:].argmax(axis=1)] == [row[1] for row in rows]
    np.testing.assert_array_equal(stored.x[:, 1:].sum(axis=1), 1)
    assert stored.labels == [row[2] for row in rows]
