"""Stages, moving dials and several teachers in a spec: what is taken, what is refused, what `auto` becomes."""

from typing import Any

import pytest

from stillhouse.spec import AUTO, JobSpec, Limits, resolve
from stillhouse.spec.errors import InvalidSpec
from stillhouse.spec.losses import TemperatureRamp, WeightRamp
from tests.spec.bare import BARE, refused
from tests.spec.test_resolve import DIGITS, TABLE, autos, held, written, wrong

KD, CE = {"kind": "kd"}, {"kind": "ce"}


def test_stages_resolve_without_any_auto_and_share_the_epochs_among_those_that_leave_them_open() -> None:
    stages = [{"losses": [KD]}, {"losses": [KD, CE], "epochs": 7}, {"losses": [CE], "learning_rate": 0.5}]
    resolved = resolve(JobSpec.model_validate(BARE | {"stages": stages, "training": {"epochs": 21}}), DIGITS, Limits())
    assert resolved.stages is not None
    assert [stage.epochs for stage in resolved.stages] == [10, 7, 10]
    assert [stage.learning_rate for stage in resolved.stages] == [0.003, 0.003, 0.5]
    assert [[loss.weight for loss in stage.losses] for stage in resolved.stages] == [[1.0], [0.9, 0.1], [1.0]]
    assert resolved.losses is None
    # The device, and the temperature of a stage that softens nothing.
    assert autos(resolved.model_dump(mode="json")) == [AUTO, AUTO]
    assert resolve(resolved, DIGITS, Limits()) == resolved


def test_beside_its_own_average_the_labels_carry_a_student_until_that_has_something_to_say() -> None:
    resolved = resolve(written(teacher={"ema": {}}), DIGITS, Limits())
    assert isinstance(resolved.losses, tuple)
    ramp = WeightRamp(start=0, end=1, until=0.3)
    assert [(loss.kind, loss.weight) for loss in resolved.losses] == [("ce", 1.0), ("kd", ramp)]
    assert resolved.losses[1].temperature == resolved.temperature == 4.0  # type: ignore[union-attr]
    named = resolve(written(teacher={"ema": {}}, losses=[KD, CE]), DIGITS, Limits())
    assert isinstance(named.losses, tuple)
    assert [loss.weight for loss in named.losses] == [0.9, 0.1]
    assert resolve(resolved, DIGITS, Limits()) == resolved


def test_each_stage_may_have_a_temperature_of_its_own_or_take_the_specs() -> None:
    stages = [{"losses": [KD], "temperature": 9}, {"losses": [KD, {"kind": "dist"}]}]
    resolved = resolve(JobSpec.model_validate(BARE | {"stages": stages, "temperature": 3}), DIGITS, Limits())
    found = [[loss.temperature for loss in stage.losses] for stage in resolved.plan()]  # type: ignore[union-attr]
    assert found == [[9.0], [3.0, 3.0]]


def test_a_plan_without_stages_is_distillation_and_then_finetuning() -> None:
    resolved = resolve(written(finetune={"epochs": 3}, training={"warmup_epochs": 1}), DIGITS, Limits())
    first, last = resolved.plan()
    assert (first.losses, first.warmup_epochs) == (resolved.losses, 1)
    assert [loss.kind for loss in last.losses] == ["ce"]
    assert (last.epochs, last.warmup_epochs, last.schedule) == (3, 0, "cosine")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"stages": [{"losses": [KD]}], "losses": [CE]}, "/losses"),
        ({"stages": [{"losses": [KD]}], "finetune": {}}, "/finetune"),
        ({"stages": [{"losses": [CE]}], "temperature": 2}, "/temperature"),
        ({"stages": [{"losses": [KD]}], "training": {"early_stopping": {}}}, "/training"),
        ({"stages": [{"losses": [KD]}], "training": {"warmup_epochs": 2}}, "/training"),
        ({"stages": []}, "/stages"),
        ({"stages": [{"losses": []}]}, "/stages/0/losses"),
        ({"stages": [{"losses": [KD, KD]}]}, "/stages/0/losses"),
        ({"stages": [{"losses": [KD], "freeze": ["../x"]}]}, "/stages/0/freeze/0"),
        ({"losses": None}, "/losses"),
    ],
)
def test_contradictions_between_stages_and_the_rest_are_named(change: dict[str, Any], field: str) -> None:
    assert field in refused(**change)


@pytest.mark.parametrize("end", [0, -1, 101])
def test_a_temperature_never_comes_to_zero(end: float) -> None:
    # The end alone is named: that an object is no number is not what is wrong.
    assert set(refused(temperature={"start": 4, "end": end})) == {"/temperature/end"}
    found = refused(losses=[{"kind": "kd", "temperature": {"start": 4, "end": end}}])
    assert set(found) == {"/losses/0/temperature/end"}


def test_weights_that_stay_at_zero_all_the_way_are_no_weights() -> None:
    nothing = {"start": 0, "end": 0}
    assert "/losses" in refused(losses=[{"kind": "kd", "weight": nothing}, {"kind": "ce", "weight": 0}])
    JobSpec.model_validate(BARE | {"losses": [{"kind": "kd", "weight": {"start": 0, "end": 1}}]})


def test_a_moving_temperature_is_echoed_and_moves_every_loss_that_softens() -> None:
    spec = JobSpec.model_validate(BARE | {"temperature": {"start": 8, "end": 2, "shape": "cosine"}})
    resolved = resolve(spec, DIGITS, Limits())
    ramp = TemperatureRamp(start=8.0, end=2.0, shape="cosine")
    assert resolved.temperature == ramp
    assert isinstance(resolved.losses, tuple)
    assert resolved.losses[0].temperature == ramp  # type: ignore[union-attr]


def test_a_ramp_goes_from_start_to_end_and_stays_there() -> None:
    line = WeightRamp(start=1.0, end=3.0, until=0.5)
    assert [line.at(done) for done in (0.0, 0.25, 0.5, 1.0)] == [1.0, 2.0, 3.0, 3.0]
    wave = TemperatureRamp(start=4.0, end=2.0, shape="cosine")
    assert wave.at(0.0) == 4.0
    assert wave.at(0.5) == pytest.approx(3.0)
    assert wave.at(1 / 3) == pytest.approx(3.5)  # (1 - cos 60°) / 2 = 1/4 of the way
    assert wave.at(1.0) == 2.0


def test_stages_are_held_against_limits_and_data() -> None:
    stages = [
        {"losses": [KD], "epochs": 50},
        {"losses": [CE], "early_stopping": {}},
        {"losses": [CE], "warmup_epochs": 9},
    ]
    spec = JobSpec.model_validate(BARE | {"stages": stages, "training": {"epochs": 6}})
    assert wrong(spec, TABLE, Limits(max_epochs=20)) == {
        "/stages/0/epochs": "over_limit",
        "/stages/1/early_stopping": "no_validation_split",
        "/stages/2/warmup_epochs": "too_long",
    }


def test_stages_that_train_hidden_layers_alone_are_refused() -> None:
    spec = JobSpec.model_validate(BARE | {"stages": [{"losses": [{"kind": "fitnet"}]}, {"losses": [{"kind": "rkd"}]}]})
    assert wrong(spec) == {"/stages": "last_layer_untrained"}


def test_one_loss_on_layers_looks_and_two_look() -> None:
    for kinds, said in ((["fitnet"], "fitnet looks at"), (["fitnet", "rkd"], "fitnet and rkd look at")):
        with pytest.raises(InvalidSpec) as caught:
            resolve(JobSpec.model_validate(BARE | {"losses": [{"kind": kind} for kind in kinds]}), DIGITS, Limits())
        assert caught.value.errors[0].detail.startswith(said)


MODEL = {"model": "mdl_" + "0" * 26}
TRAIN = {"train": {"architecture": {"name": "mlp", "hidden": [32]}}}


def ensemble(*members: dict[str, Any], **more: Any) -> dict[str, Any]:
    return BARE | {"teacher": {"ensemble": {"members": list(members), **more}}}


def test_members_of_an_ensemble_start_from_seeds_of_their_own_and_share_its_temperature() -> None:
    spec = JobSpec.model_validate(ensemble(TRAIN, TRAIN, {**MODEL, "temperature": 1}) | {"temperature": 6})
    resolved = resolve(spec, DIGITS, Limits(), teachers=[None, None, held(DIGITS)])
    found = resolved.teacher.ensemble
    assert found is not None
    assert found.temperature == 6
    assert [member.temperature for member in found.members] == [6, 6, 1]
    assert [member.train and member.train.seed for member in found.members] == [0, 1, None]
    assert resolve(resolved, DIGITS, Limits(), teachers=[None, None, held(DIGITS)]) == resolved


def test_each_member_is_held_against_the_data() -> None:
    large = {"train": {"architecture": {"name": "mlp", "hidden": [5000, 5000]}, "epochs": 99}}
    spec = JobSpec.model_validate(ensemble(large, MODEL))
    other = DIGITS.model_copy(update={"shape": (3, 8, 8)})
    found = wrong(spec, limits=Limits(max_parameters=1_000_000, max_epochs=50), teachers=[None, held(other)])
    assert found == {
        "/teacher/ensemble/members/0/train/architecture": "too_many_parameters",
        "/teacher/ensemble/members/0/train/epochs": "over_limit",
        "/teacher/ensemble/members/1/model": "shape_mismatch",
    }


def test_losses_on_layers_do_not_look_into_an_ensemble() -> None:
    spec = JobSpec.model_validate(ensemble(TRAIN, TRAIN) | {"losses": [{"kind": "fitnet"}, CE]})
    assert wrong(spec) == {"/teacher/ensemble": "layers_of_several"}


@pytest.mark.parametrize(
    ("teacher", "field"),
    [
        ({"ensemble": {"members": [TRAIN]}}, "/teacher/ensemble/members"),
        ({"ensemble": {"members": [TRAIN, {}]}}, "/teacher/ensemble/members/1"),
        ({"ensemble": {"members": [TRAIN, {**TRAIN, "weight": 0}]}}, "/teacher/ensemble/members/1/weight"),
        ({"ema": {"decay": 1}}, "/teacher/ema/decay"),
        ({"ema": {}, "previous": {}}, "/teacher"),
        ({}, "/teacher"),
    ],
)
def test_a_teacher_that_makes_no_sense_is_refused_where_it_stands(teacher: dict[str, Any], field: str) -> None:
    assert field in refused(teacher=teacher)


def test_only_a_teacher_of_images_that_stays_as_it_is_speaks_for_the_mean_over_shifts() -> None:
    mean = {**TRAIN, "mean_over_shifts": 2}
    assert resolve(JobSpec.model_validate(BARE | {"teacher": mean}), DIGITS, Limits()).teacher.mean_over_shifts == 2
    assert wrong(written(teacher=mean), TABLE) == {"/teacher/mean_over_shifts": "not_for_tables"}
    layered = JobSpec.model_validate(BARE | {"teacher": mean, "losses": [{"kind": "fitnet"}, CE]})
    assert wrong(layered) == {"/teacher/mean_over_shifts": "layers_of_several"}
    shrunk = JobSpec.model_validate(BARE | {"teacher": mean, "student": {"name": "shrink"}})
    assert wrong(shrunk) == {"/student": "cannot_shrink"}
    for own in ({"previous": {}}, {"ema": {}}):
        found = refused(teacher={**own, "mean_over_shifts": 1})
        assert "goes with train, model or ensemble" in found["/teacher/mean_over_shifts"]
