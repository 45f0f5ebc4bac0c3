"""Teachers whose classes are not the dataset's, and teachers from elsewhere: what a spec says, and what is echoed."""

from typing import Any

import pytest
from pydantic import ValidationError

from stillhouse.spec import JobSpec, Limits, resolve
from stillhouse.spec.errors import FieldError, InvalidSpec
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.settle_teacher import Held
from stillhouse.spec.teachers import ForeignConfig, OnnxNet, Preprocessing, TimmNet
from tests.spec.test_resolve import DIGITS, held, written

MODEL = "mdl_" + "0" * 26
PETS = DIGITS.model_copy(update={"classes": ("cat", "dog"), "shape": (3, 32, 32)})


def foreign(classes: tuple[str, ...] | None, **changes: Any) -> ForeignConfig:
    """What the service holds of an uploaded network of timm."""
    fields = {
        "network": TimmNet(architecture="resnet18"),
        "task": "image-classification",
        "shape": (3, None, None),
        "outputs": 4 if classes is None else len(classes),
        "classes": classes,
        "parameters": 11_000_000,
    }
    return ForeignConfig.model_validate(fields | changes)


def settled(
    known: Held, label_map: dict[str, str] | None = None, facts: DataFacts = PETS, **changes: Any
) -> dict[str, str] | None:
    """The label map of the resolved spec."""
    teacher = {"model": MODEL, "label_map": label_map}
    return resolve(written(teacher=teacher, **changes), facts, Limits(), teachers=[known]).teacher.label_map


def refused(
    known: Held | None, label_map: dict[str, str] | None = None, facts: DataFacts = PETS, **changes: Any
) -> list[FieldError]:
    body = written(**({"teacher": {"model": MODEL, "label_map": label_map}} | changes))
    with pytest.raises(InvalidSpec) as caught:
        resolve(body, facts, Limits(), teachers=[known])
    return list(caught.value.errors)


def test_a_teacher_with_the_datasets_own_classes_needs_no_map() -> None:
    assert settled(foreign(("cat", "dog"))) is None
    assert settled(held(PETS)) is None


def test_the_map_that_was_worked_out_is_echoed_and_resolves_to_itself() -> None:
    known = foreign(("car", "dog", "tiger cat", "CAT"))
    echoed = settled(known)
    assert echoed == {"dog": "dog", "CAT": "cat"}
    assert settled(known, echoed) == echoed


def test_a_stated_map_is_completed_by_names() -> None:
    known = foreign(("beagle", "pug", "cat", "car"))
    assert settled(known, {"beagle": "dog", "1": "dog"}) == {"beagle": "dog", "pug": "dog", "cat": "cat"}


def test_classes_without_names_are_mapped_by_index() -> None:
    known = foreign(None)
    assert settled(known, {"0": "dog", "3": "cat"}) == {"0": "dog", "3": "cat"}
    assert settled(foreign(None, outputs=2)) == {"0": "cat", "1": "dog"}
    assert [(e.pointer, e.code) for e in refused(known)] == [("/teacher/label_map", "class_mismatch")]


def test_a_class_of_a_name_that_is_not_its_own_is_echoed_by_its_index() -> None:
    assert settled(foreign(("crane", "crane", "dog")), {"1": "cat"}) == {"1": "cat", "dog": "dog"}


def test_a_model_of_ours_in_another_order_is_mapped_by_name() -> None:
    turned = held(PETS.model_copy(update={"classes": ("dog", "cat")}))
    assert settled(turned) == {"dog": "dog", "cat": "cat"}


def test_what_a_map_cannot_mean_is_named_by_its_entry() -> None:
    errors = refused(foreign(("beagle", "pug")), {"begle": "dog", "pug": "hamster"})
    found = {e.pointer: e.code for e in errors}
    assert found["/teacher/label_map/begle"] == "unknown_teacher_class"
    assert found["/teacher/label_map/pug"] == "unknown_class"
    assert "'beagle'" in next(e.detail for e in errors if e.pointer.endswith("begle"))


def test_a_member_of_an_ensemble_has_a_map_of_its_own() -> None:
    own = {"train": {"architecture": {"name": "cnn"}}}
    members = [own, {"model": MODEL, "label_map": {"0": "dog", "1": "cat"}}]
    body = written(teacher={"ensemble": {"members": members}})
    resolved = resolve(body, PETS, Limits(), teachers=[None, foreign(None)])
    assert resolved.teacher.members[1].label_map == {"0": "dog", "1": "cat"}
    members[1]["label_map"] = {"9": "dog"}
    body = written(teacher={"ensemble": {"members": members}})
    with pytest.raises(InvalidSpec) as caught:
        resolve(body, PETS, Limits(), teachers=[None, foreign(None)])
    assert "/teacher/ensemble/members/1/label_map/9" in {e.pointer for e in caught.value.errors}


@pytest.mark.parametrize(
    "teacher",
    [
        {"train": {"architecture": {"name": "mlp"}}, "label_map": {"a": "b"}},
        {"previous": {}, "label_map": {"a": "b"}},
        {"model": MODEL, "label_map": {}},
    ],
)
def test_a_map_goes_with_a_model_and_has_an_entry(teacher: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="label_map"):
        JobSpec.model_validate(written().model_dump(mode="json") | {"teacher": teacher})


def test_a_teacher_that_cannot_look_at_the_data_is_refused_with_the_fix() -> None:
    gray = DIGITS.model_copy(update={"classes": ("cat", "dog")})
    error, *more = refused(foreign(("cat", "dog")), facts=gray)
    assert (error.pointer, error.code, more) == ("/teacher/model", "channel_mismatch", [])
    assert "preprocessing.gray" in error.detail
    fed = foreign(("cat", "dog"), preprocessing=Preprocessing(gray="repeat"))
    assert settled(fed, facts=gray) is None
    fixed = foreign(("cat", "dog"), shape=(3, 224, 224))
    assert [e.code for e in refused(fixed)] == ["shape_mismatch"]


def test_layers_of_a_black_box_cannot_be_learnt_from() -> None:
    box = foreign(("cat", "dog"), network=OnnxNet(input="x", output="y", dtype="float32"))
    student = {"student": {"name": "cnn"}}
    losses = [{"kind": "kd"}, {"kind": "fitnet"}]
    (error,) = refused(box, losses=losses, **student)
    assert (error.pointer, error.code) == ("/teacher/model", "black_box")
    assert error.detail.startswith("fitnet looks at layers")
    assert settled(box, losses=[{"kind": "kd"}]) is None
    assert settled(foreign(("cat", "dog")), losses=losses, **student) is None


def test_only_a_teacher_of_ours_with_the_datasets_classes_can_be_shrunk() -> None:
    shrunk = {"student": {"name": "shrink", "width": 0.5}}
    assert [e.code for e in refused(foreign(("cat", "dog")), **shrunk)] == ["cannot_shrink"]
    turned = held(PETS.model_copy(update={"classes": ("dog", "cat")}))
    errors = refused(turned, **shrunk)
    assert [(e.pointer, e.code) for e in errors] == [("/student", "cannot_shrink")]
    assert "mapped" in errors[0].detail
    assert settled(held(PETS), **shrunk) is None
