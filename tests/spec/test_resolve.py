"""From the spec as written to the spec that runs."""

from typing import Any

import pytest

from stillhouse.spec import AUTO, DataFacts, JobSpec, Limits, resolve
from stillhouse.spec.errors import InvalidSpec
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.facts import Feature
from stillhouse.spec.students import Architecture, Mlp

DIGITS = DataFacts(
    task="image-classification",
    shape=(1, 8, 8),
    dtype="uint8",
    classes=tuple("0123456789"),
    rows={"train": 1259, "validation": 269, "test": 269},
)
TABLE = DataFacts(
    task="tabular-classification",
    shape=(2,),
    dtype="float32",
    classes=("no", "yes"),
    rows={"train": 50_000, "validation": 0, "test": 100},
    features=(Feature(name="a"), Feature(name="b")),
)


def written(**changes: Any) -> JobSpec:
    minimal = {
        "teacher": {"train": {"architecture": {"name": "mlp", "hidden": [1200, 1200], "dropout": 0.5}, "epochs": 30}},
        "dataset": {"builtin": "digits"},
        "student": {"name": "mlp", "hidden": [32]},
        "temperature": 4,
    }
    return JobSpec.model_validate(minimal | changes)


def wrong(spec: JobSpec, facts: DataFacts = DIGITS, limits: Limits | None = None, **more: Any) -> dict[str, str]:
    with pytest.raises(InvalidSpec) as caught:
        resolve(spec, facts, limits or Limits(), **more)
    return {error.pointer: error.code for error in caught.value.errors}


def held(facts: DataFacts, net: Architecture | None = None) -> ModelConfig:
    """What the service holds of a model made on such data."""
    return ModelConfig(
        architecture=net or Mlp(name="mlp", hidden=(8,)), facts=facts, mean=[0], std=[1], parameters=1, preprocessing=""
    )


def autos(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [found for item in value.values() for found in autos(item)]
    if isinstance(value, list):
        return [found for item in value for found in autos(item)]
    return [value] if value == AUTO else []


@pytest.mark.parametrize("facts", [DIGITS, TABLE])
@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd"])
def test_four_fields_resolve_to_a_spec_without_any_auto_but_the_device(facts: DataFacts, optimizer: str) -> None:
    resolved = resolve(written(training={"optimizer": optimizer}, finetune={}), facts, Limits())
    assert autos(resolved.model_dump(mode="json")) == [AUTO]
    assert resolved.resources.device == AUTO  # only the worker knows what it has


def test_resolving_again_changes_nothing() -> None:
    once = resolve(written(finetune={}), DIGITS, Limits())
    assert resolve(once, DIGITS, Limits()) == once


def test_what_was_given_is_kept() -> None:
    training = {"epochs": 7, "batch_size": 9, "learning_rate": 0.5, "weight_decay": 0.25, "seed": 11}
    resolved = resolve(written(training=training), DIGITS, Limits())
    assert {name: getattr(resolved.training, name) for name in training} == training
    assert resolved.teacher.train is not None
    assert resolved.teacher.train.epochs == 30


def test_the_short_temperature_is_that_of_the_kd_loss() -> None:
    for body in (written(temperature=7), written(temperature=AUTO, losses=[{"kind": "kd", "temperature": 7}])):
        resolved = resolve(body, DIGITS, Limits())
        assert resolved.temperature == 7
        assert next(loss for loss in resolved.losses if loss.kind == "kd").temperature == 7  # type: ignore[union-attr]


def test_the_usual_losses_are_mostly_the_teacher() -> None:
    losses = resolve(written(), DIGITS, Limits()).losses
    assert [(loss.kind, loss.weight) for loss in losses] == [("kd", 0.9), ("ce", 0.1)]  # type: ignore[union-attr]


def test_a_loss_alone_has_weight_one() -> None:
    losses = resolve(written(losses=[{"kind": "kd"}]), DIGITS, Limits()).losses
    assert [loss.weight for loss in losses] == [1.0]  # type: ignore[union-attr]


def test_the_seed_of_training_is_the_teachers_too() -> None:
    resolved = resolve(written(training={"seed": 5}), DIGITS, Limits())
    assert resolved.teacher.train is not None
    assert resolved.teacher.train.seed == 5


def test_each_misfit_is_named_at_its_field() -> None:
    assert wrong(written(task="tabular-classification")) == {"/task": "task_mismatch"}
    assert wrong(written(student={"name": "cnn"}), TABLE) == {"/student": "architecture_misfit"}
    assert wrong(written(student={"name": "cnn", "channels": [4] * 5})) == {"/student": "architecture_misfit"}
    resnet = {"train": {"architecture": {"name": "resnet"}}}
    assert wrong(written(teacher=resnet), TABLE) == {"/teacher/train/architecture": "architecture_misfit"}
    weighed = {"class_weights": "balanced"}
    assert wrong(written(training=weighed, losses=[{"kind": "kd"}])) == {"/training/class_weights": "without_effect"}
    resolve(written(training=weighed, losses=[{"kind": "kd"}], finetune={}), DIGITS, Limits())
    augmented = {"augmentation": {"horizontal_flip": True}}
    assert wrong(written(training=augmented), TABLE) == {"/training/augmentation": "not_for_tables"}
    patient = {"early_stopping": {"patience": 3}}
    assert wrong(written(training=patient), TABLE) == {"/training/early_stopping": "no_validation_split"}
    warm = {"epochs": 3, "warmup_epochs": 4.0}
    assert wrong(written(training=warm)) == {"/training/warmup_epochs": "too_long"}


def test_each_limit_is_named_at_its_field() -> None:
    limits = Limits(max_epochs=20, max_parameters=50_000, max_batch_size=64, max_hours=2)
    body = written(training={"epochs": 21, "batch_size": 65}, finetune={"epochs": 21}, resources={"max_hours": 3.0})
    assert wrong(body, limits=limits) == {
        "/teacher/train/architecture": "too_many_parameters",
        "/training/epochs": "over_limit",
        "/training/batch_size": "over_limit",
        "/teacher/train/epochs": "over_limit",
        "/finetune/epochs": "over_limit",
        "/resources/max_hours": "over_limit",
    }


def test_all_that_is_wrong_is_said_at_once() -> None:
    body = written(
        task="tabular-classification", student={"name": "cnn", "channels": [4] * 9}, training={"epochs": 99_999}
    )
    assert set(wrong(body)) == {"/task", "/student", "/training/epochs"}


def test_a_default_stays_within_the_limits() -> None:
    small = Limits(max_epochs=5, max_batch_size=16)
    body = written(teacher={"train": {"architecture": {"name": "mlp"}}}, finetune={})
    resolved = resolve(body, DIGITS, small)
    assert resolved.training.epochs == 5
    assert resolved.training.batch_size == 16


def test_a_model_that_does_not_fit_the_data_cannot_teach() -> None:
    body = written(teacher={"model": "mdl_" + "0" * 26})
    for change, found in (
        ({"shape": (3, 8, 8)}, {"/teacher/model": "shape_mismatch"}),
        ({"classes": tuple("012345678")}, {"/teacher/label_map": "unmapped_class"}),
    ):
        assert wrong(body, teachers=[held(DIGITS.model_copy(update=change))]) == found
    other = TABLE.model_copy(update={"features": (Feature(name="b"), Feature(name="a"))})
    assert wrong(body, TABLE, teachers=[held(other)]) == {"/teacher/model": "column_mismatch"}
    assert resolve(body, DIGITS, Limits(), teachers=[held(DIGITS)]).teacher.model is not None


def test_classes_are_evened_by_weights_or_by_sampling_and_the_choice_is_echoed() -> None:
    for choice in ({"class_weights": "balanced"}, {"sampling": "balanced"}):
        training = resolve(written(training=choice), DIGITS, Limits()).training.model_dump()
        assert {key: training[key] for key in choice} == choice
    with pytest.raises(ValueError, match="take one of the two"):
        written(training={"class_weights": "balanced", "sampling": "balanced"})


@pytest.mark.parametrize(
    "augmentation",
    [{"colour_jitter": 0.2}, {"rand_augment": {}}, {"random_erasing": 0.1}, {"cutmix": 1.0}, {"crop_padding": 1}],
    ids=lambda a: next(iter(a)),
)
def test_all_augmentation_but_mixup_is_for_images(augmentation: dict[str, Any]) -> None:
    assert wrong(written(training={"augmentation": augmentation}), TABLE) == {
        "/training/augmentation": "not_for_tables"
    }
    resolve(written(training={"augmentation": augmentation}), DIGITS, Limits())
    resolve(written(training={"augmentation": {"mixup": 0.2}}), TABLE, Limits())


def test_operations_on_colours_need_one_or_three_channels() -> None:
    four = DIGITS.model_copy(update={"shape": (4, 8, 8)})
    augmentation = {"colour_jitter": 0.2, "rand_augment": {"ops": 1}, "crop_padding": 1, "mixup": 1.0}
    assert wrong(written(training={"augmentation": augmentation}), four) == {
        "/training/augmentation/colour_jitter": "not_for_these_images",
        "/training/augmentation/rand_augment": "not_for_these_images",
    }
