"""How teacher classes find dataset classes, and what is said when they do not."""

import pytest

from stillhouse.spec.teachers import LabelMap, map_labels
from stillhouse.spec.teachers.label_map import POINTER


def found(
    names: tuple[str, ...] | None, count: int, classes: tuple[str, ...], stated: dict[str, str] | None = None
) -> LabelMap:
    label_map, wrong = map_labels(names, count, classes, stated)
    assert wrong == []
    assert label_map is not None
    return label_map


def wrong(
    names: tuple[str, ...] | None, count: int, classes: tuple[str, ...], stated: dict[str, str] | None = None
) -> list[tuple[str, str, str]]:
    label_map, errors = map_labels(names, count, classes, stated)
    assert label_map is None
    return [(error.pointer, error.code, error.detail) for error in errors]


def test_equal_classes_need_no_map() -> None:
    label_map = found(("a", "b"), 2, ("a", "b"))
    assert (label_map.to, label_map.by, label_map.notes) == ((0, 1), "same", ())
    assert label_map.changes_nothing


def test_equal_names_in_another_order_are_put_in_order() -> None:
    label_map = found(("b", "c", "a"), 3, ("a", "b", "c"))
    assert (label_map.to, label_map.by) == ((1, 2, 0), "name")
    assert not label_map.changes_nothing


def test_more_classes_than_the_dataset_are_left_out() -> None:
    label_map = found(tuple(f"c{i}" for i in range(1000)), 1000, ("c999", "c5"))
    assert (label_map.to[999], label_map.to[5], label_map.to.count(-1)) == (0, 1, 998)
    assert "998 of the teacher's 1,000 classes" in label_map.notes[-1]


def test_a_prefix_of_the_teachers_classes_is_no_identity() -> None:
    assert found(("a", "b", "c"), 3, ("a", "b")).to == (0, 1, -1)


def test_spelling_and_synonyms_are_seen_through_when_one_class_alone_is_meant() -> None:
    label_map = found(("tench, Tinca tinca", "Great_Grey-Owl"), 2, ("tench", "great grey owl"))
    assert label_map.to == (0, 1)
    assert len(label_map.notes) == 2, "each is said"
    ambiguous = wrong(("crane, bird", "crane, machine"), 2, ("crane",))
    assert ambiguous[0][:2] == (POINTER, "unmapped_class")
    assert "0, 1" in ambiguous[0][2]


def test_names_that_look_alike_are_one_whichever_way_their_accents_are_written() -> None:
    apart, one = "cafe\u0301", "caf\u00e9"
    for name, class_ in ((apart, one), (one, apart)):
        label_map = found(("b", name), 2, (class_, "b"))
        assert (label_map.to, label_map.notes) == ((1, 0), ())
        assert found(("x", name), 2, ("b", class_), {class_: name, "x": "b"}).to == (0, 1)
    # They are two where there are two.
    assert found(("x", "y"), 2, (apart, one), {"x": one, "y": apart}).to == (1, 0)
    assert found((one, apart), 2, (apart, one)).to == (1, 0)


def test_no_names_and_as_many_classes_go_by_position_with_a_note() -> None:
    label_map = found(None, 2, ("a", "b"))
    assert (label_map.to, label_map.by, len(label_map.notes)) == ((0, 1), "position", 1)


def test_no_names_and_another_number_of_classes_asks_for_a_map() -> None:
    ((pointer, code, detail),) = wrong(None, 1000, ("a", "b"))
    assert (pointer, code) == (POINTER, "class_mismatch")
    assert "1000" in detail
    assert '{"0": "a"}' in detail


def test_each_class_nobody_leads_to_is_named_with_close_names() -> None:
    errors = wrong(("tabby cat", "dog"), 2, ("cat", "dog", "fish"))
    assert [(pointer, code) for pointer, code, _ in errors] == [(POINTER, "unmapped_class")] * 2
    assert "'cat'" in errors[0][2]
    assert "'tabby cat'" in errors[0][2]
    assert "'fish'" in errors[1][2]


def test_of_many_unreached_classes_twenty_are_named() -> None:
    errors = wrong(("x", "y"), 2, tuple(f"class {i}" for i in range(50)))
    assert len(errors) == 21
    assert "30 more" in errors[-1][2]


def test_a_stated_map_may_join_classes_and_name_them_by_index() -> None:
    names = ("tabby", "siamese", "beagle", "3")
    label_map = found(names, 4, ("dog", "cat"), {"tabby": "cat", "1": "cat", "beagle": "dog"})
    assert (label_map.to, label_map.by) == ((1, 1, 0, -1), "stated")
    assert found(names, 4, ("x", "dog", "cat"), {"3": "x", "0": "cat", "2": "dog"}).to == (2, -1, 1, 0), "a name first"


def test_what_a_stated_map_leaves_out_is_looked_for_by_name() -> None:
    assert found(("tabby", "dog", "cat"), 3, ("cat", "dog"), {"tabby": "cat"}).to == (0, 1, -1)


@pytest.mark.parametrize(
    ("stated", "pointer", "code", "said"),
    [
        ({"tabbi": "cat"}, "/tabbi", "unknown_teacher_class", "'tabby'"),
        ({"9": "cat"}, "/9", "unknown_teacher_class", "0 to 1"),
        ({"tabby": "cats"}, "/tabby", "unknown_class", "'cat'"),
        ({"tabby": "cat", "0": "dog"}, "/0", "mapped_twice", "'cat'"),
        ({"a/b~c": "cat"}, "/a~1b~0c", "unknown_teacher_class", "a/b~c"),
        ({"-1": "cat"}, "/-1", "unknown_teacher_class", "'-1'"),
        ({"²": "cat"}, "/²", "unknown_teacher_class", "'²'"),
    ],
)
def test_a_wrong_entry_is_named(stated: dict[str, str], pointer: str, code: str, said: str) -> None:
    error = wrong(("tabby", "beagle"), 2, ("cat", "dog"), stated)[0]
    assert error[:2] == (POINTER + pointer, code)
    assert said in error[2]


def test_a_name_the_teacher_has_twice_must_be_given_by_index() -> None:
    assert "[0, 1]" in wrong(("crane", "crane"), 2, ("a", "b"), {"crane": "a"})[0][2]
    assert found(("crane", "crane"), 2, ("a", "b"), {"0": "b", "1": "a"}).to == (1, 0)
