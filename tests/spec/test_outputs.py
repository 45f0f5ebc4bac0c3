"""How the teacher's outputs reach the student: what `auto` becomes, and what cannot be."""

from typing import Any

import pytest

from stillhouse.spec import DataFacts, Limits, resolve
from stillhouse.spec.errors import InvalidSpec
from stillhouse.spec.settle_outputs import LIVE_UP_TO, USUAL_VIEWS, pass_costs
from stillhouse.spec.students import Mlp
from stillhouse.spec.teacher_outputs import most_top_k, most_views, output_bytes
from tests.spec.test_resolve import DIGITS, TABLE, held, written, wrong

CROPPED = {"augmentation": {"crop_padding": 1}}
MODEL = {"model": "mdl_" + "0" * 26}
MANY = DataFacts(
    task="image-classification",
    shape=(1, 8, 8),
    dtype="uint8",
    classes=tuple(f"class {i}" for i in range(1000)),
    rows={"train": 10_000, "validation": 10, "test": 10},
)


def views(facts: DataFacts = DIGITS, *, limits: Limits | None = None, teachers: Any = (), **changes: Any) -> Any:
    return resolve(written(**changes), facts, limits or Limits(), teachers=teachers).teacher_outputs.views


def reason(*, limits: Limits | None = None, teachers: Any = (), **changes: Any) -> str:
    found = resolve(written(**changes), DIGITS, limits or Limits(), teachers=teachers).teacher_outputs.reason
    assert found is not None
    return found


def test_without_augmentation_there_is_one_view() -> None:
    assert views() == 1
    assert views(TABLE, student={"name": "mlp"}) == 1
    assert views(teacher_outputs={"views": 1}) == 1
    assert views(teacher_outputs={"views": "live"}) == "live"


def test_augmented_images_have_as_many_views_as_a_dear_teacher_is_worth() -> None:
    assert views(training={**CROPPED, "epochs": 50}) == USUAL_VIEWS == 8
    assert views(training={**CROPPED, "epochs": 3}) == 3
    assert views(training={**CROPPED, "epochs": 50}, teacher_outputs={"views": 40}) == 40


def test_a_cheap_teacher_works_along() -> None:
    # A pass of h hidden units takes h · (64 + 10) multiply-adds; the student has 32 of them.
    cheap = {"train": {"architecture": {"name": "mlp", "hidden": [48]}}}
    dear = {"train": {"architecture": {"name": "mlp", "hidden": [49]}}}
    assert views(teacher=cheap, training=CROPPED) == "live"
    assert views(teacher=dear, training=CROPPED) == 8
    spec = resolve(written(teacher=cheap), DIGITS, Limits())
    costs = pass_costs(spec, DIGITS, ())
    assert costs is not None
    assert costs.relative == LIVE_UP_TO == 1.5
    assert views(teacher={"previous": {}}, training=CROPPED) == "live"
    smallest = {"train": {"architecture": {"name": "mlp", "hidden": [6]}}}
    assert views(teacher=smallest, training=CROPPED) == "live"
    assert views(teacher={**smallest, "mean_over_shifts": 1}, training=CROPPED) == 8  # 9 passes


def test_of_a_held_teacher_the_network_counts_and_of_several_the_sum() -> None:
    small, large = held(DIGITS, Mlp(name="mlp", hidden=(8,))), held(DIGITS, Mlp(name="mlp", hidden=(800,)))
    assert views(teacher=MODEL, training=CROPPED, teachers=(small,)) == "live"
    assert views(teacher=MODEL, training=CROPPED, teachers=(large,)) == 8
    members = {"ensemble": {"members": [MODEL, {"train": {"architecture": {"name": "mlp", "hidden": [40]}}}]}}
    assert views(teacher=members, training=CROPPED, teachers=(small, None)) == "live"
    assert views(teacher=members, training=CROPPED, teachers=(large, None)) == 8


def test_the_resolved_spec_says_why_with_the_two_costs_compared() -> None:
    # A pass of h hidden units takes h · (64 + 10) multiply-adds; the student has 32 of them.
    cheap = {"train": {"architecture": {"name": "mlp", "hidden": [48]}}}
    dear = {"train": {"architecture": {"name": "mlp", "hidden": [64]}}}
    kept, live = reason(teacher=dear, training=CROPPED), reason(teacher=cheap, training=CROPPED)
    assert "teacher counts 4,736 multiply-adds, one of the student 2,368: 2 times" in kept
    assert kept.endswith("8 views are kept.")
    assert "teacher counts 3,552 multiply-adds, one of the student 2,368: 1.5 times" in live
    assert live.endswith("the teacher works along.")
    assert "top_k keeps outputs: 8 views" in reason(teacher=cheap, training=CROPPED, teacher_outputs={"top_k": 2})
    assert "not known" in reason(teacher=MODEL, training=CROPPED)
    assert "Without augmentation" in reason()
    assert "averaged teacher" in reason(teacher={"ema": {}})
    assert "and 39 are allowed" in reason(training=CROPPED, limits=Limits(max_outputs_bytes=39))


def test_a_reason_the_client_writes_is_replaced_and_what_it_asks_for_is_set_beside_what_auto_would_be() -> None:
    asked = {"views": 4, "reason": "because"}
    assert reason(training=CROPPED, teacher_outputs=asked).startswith("The spec asks for it; auto would be 8. A pass")
    same = reason(training=CROPPED, teacher_outputs={"views": 8, "reason": "because"})
    assert same == reason(training=CROPPED)


def test_views_no_epoch_of_the_job_looks_at_are_told_of() -> None:
    three = {**CROPPED, "epochs": 3}
    assert "looks at 3 of the 1,000" in reason(training=three, teacher_outputs={"views": 1000})
    assert "looks at" not in reason(training=three, teacher_outputs={"views": 2})
    soft = {"losses": [{"kind": "kd"}], "epochs": 2}
    stages = [soft, {**soft, "epochs": 5}, {"losses": [{"kind": "ce"}], "epochs": 90}]
    assert "looks at 5 of the 6" in reason(stages=stages, training=CROPPED, teacher_outputs={"views": 6})


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"training": {"augmentation": {"mixup": 0.2}}}, "mixup and cutmix mix"),
        ({"training": {"augmentation": {"crop_padding": 1, "cutmix": 1.0}}}, "mixup and cutmix mix"),
        ({"losses": [{"kind": "fitnet"}, {"kind": "ce"}], "temperature": "auto"}, "fitnet looks at the"),
        ({"teacher": {"ema": {}}}, "averaged teacher"),
    ],
    ids=["mixup", "cutmix", "layers", "ema"],
)
def test_what_can_only_be_live_is_live_and_says_why(changes: dict[str, Any], why: str) -> None:
    assert views(**changes) == "live"
    assert views(**changes, teacher_outputs={"views": "live"}) == "live"
    for asked, pointer in (({"views": 4}, "views"), ({"views": 1}, "views"), ({"top_k": 2}, "top_k")):
        found = errors(teacher_outputs=asked, **changes)
        assert list(found) == [f"/teacher_outputs/{pointer}"]
        assert why in found[f"/teacher_outputs/{pointer}"]


def errors(facts: DataFacts = DIGITS, limits: Limits | None = None, **changes: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        resolve(written(**changes), facts, limits or Limits())
    return {error.pointer: error.detail for error in caught.value.errors}


def test_a_stage_on_layers_beside_one_on_outputs_leaves_the_outputs_to_be_kept() -> None:
    stages = [{"losses": [{"kind": "fitnet"}]}, {"losses": [{"kind": "kd"}]}]
    assert views(stages=stages, temperature="auto", training=CROPPED, teacher_outputs={"views": 4}) == 4


def test_views_of_images_that_do_not_move_are_refused() -> None:
    assert wrong(written(teacher_outputs={"views": 2})) == {"/teacher_outputs/views": "without_effect"}


@pytest.mark.parametrize(
    "asked", [{"views": 0}, {"views": 1001}, {"views": "all"}, {"views": 2.0}, {"views": True}, {"top_k": 0}, {"k": 1}]
)
def test_values_of_no_sense_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        written(teacher_outputs=asked)


def test_more_views_than_fit_are_refused_with_the_number_that_would() -> None:
    limits = Limits(max_outputs_bytes=1_000_000)  # a view of 1,259 rows of ten classes takes 50,360 bytes
    assert output_bytes(1259, 10, 1, None) == 50_360
    found = errors(limits=limits, training=CROPPED, teacher_outputs={"views": 20})
    assert list(found) == ["/teacher_outputs/views"]
    assert "1,007,200 bytes" in found["/teacher_outputs/views"]
    assert "19 would fit" in found["/teacher_outputs/views"]
    assert views(limits=limits, training=CROPPED, teacher_outputs={"views": 19}) == 19
    # auto takes what fits.
    assert views(limits=Limits(max_outputs_bytes=200_000), training={**CROPPED, "epochs": 50}) == 3
    assert views(limits=Limits(max_outputs_bytes=50_000)) == "live"


def test_where_not_even_one_view_fits_a_smaller_top_k_is_named() -> None:
    limits = Limits(max_outputs_bytes=1_000_000)
    detail = errors(MANY, limits, teacher_outputs={"views": 1})["/teacher_outputs/views"]
    assert "top_k 16 would fit" in detail
    assert most_top_k(10_000, 1000, 1, 1_000_000) == 16
    assert output_bytes(10_000, 1000, 1, 16) == 1_000_000 < output_bytes(10_000, 1000, 1, 17)
    assert views(MANY, limits=limits, teacher_outputs={"top_k": 16}) == 1
    assert "/teacher_outputs/views" in errors(MANY, limits, teacher_outputs={"top_k": 17})
    tiny = errors(MANY, Limits(max_outputs_bytes=10), teacher_outputs={"views": 1})
    assert tiny["/teacher_outputs/views"].endswith("Say live.")


def test_bytes_are_those_of_the_numbers_that_are_kept() -> None:
    assert output_bytes(10, 5, 3, None) == 10 * 5 * 3 * 4
    assert output_bytes(10, 2**15, 1, 4) == 10 * (5 * 4 + 4 * 2)
    assert output_bytes(10, 2**15 + 1, 1, 4) == 10 * (5 * 4 + 4 * 4)
    assert most_views(10, 5, None, 10**12) == 1000


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"teacher_outputs": {"top_k": 10}}, "10 classes"),
        ({"losses": [{"kind": "dkd"}, {"kind": "ce"}]}, "dkd reads every output"),
        ({"losses": [{"kind": "logit-mse"}, {"kind": "kd"}]}, "logit-mse reads every output"),
        ({"losses": [{"kind": "kd", "standardize": True}]}, "standardize of kd"),
        ({"losses": [{"kind": "kd", "temperature": {"start": 8, "end": 1}}], "temperature": "auto"}, "moves"),
        (
            {
                "losses": [{"kind": "kd", "temperature": 2}, {"kind": "jsd", "temperature": 3}],
                "temperature": "auto",
            },
            "one temperature, and the losses have 2, 3",
        ),
        ({"teacher_outputs": {"views": "live", "top_k": 3}}, "With live nothing is kept"),
    ],
    ids=["all classes", "dkd", "logit-mse", "standardize", "ramp", "two temperatures", "live"],
)
def test_top_k_is_refused_where_the_rest_is_needed(changes: dict[str, Any], why: str) -> None:
    found = errors(**{"teacher_outputs": {"top_k": 3}, **changes})
    assert list(found) == ["/teacher_outputs/top_k"]
    assert why in found["/teacher_outputs/top_k"]


def test_top_k_keeps_even_what_a_cheap_teacher_says() -> None:
    cheap = {"train": {"architecture": {"name": "mlp", "hidden": [8]}}}
    assert views(teacher=cheap, training={**CROPPED, "epochs": 50}, teacher_outputs={"top_k": 3}) == 8
    resolved = resolve(written(teacher_outputs={"top_k": 9}), DIGITS, Limits()).teacher_outputs
    assert (resolved.views, resolved.top_k) == (1, 9)
