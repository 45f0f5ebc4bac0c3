"""Whether a stored teacher can look at a dataset is said before a job is accepted, with the fix."""

import pytest

from stillhouse.spec import DataFacts
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.facts import Feature
from stillhouse.spec.teachers import ForeignConfig, OnnxNet, Preprocessing, teacher_misfits

OF_IMAGES = {"task": "image-classification", "dtype": "uint8", "classes": ("a", "b"), "rows": {"train": 9}}
OF_TABLES = {**OF_IMAGES, "task": "tabular-classification", "dtype": "float32"}


def facts(*shape: int) -> DataFacts:
    return DataFacts.model_validate({**(OF_TABLES if len(shape) == 1 else OF_IMAGES), "shape": shape})


def config(*shape: int | None, **preparing: object) -> ForeignConfig:
    return ForeignConfig(
        network=OnnxNet(input="x", output="y", dtype="float32"),
        task="tabular-classification" if len(shape) == 1 else "image-classification",
        shape=shape,
        outputs=2,
        preprocessing=Preprocessing.model_validate(preparing),
        parameters=1,
    )


@pytest.mark.parametrize(
    ("teacher", "data"),
    [
        (config(3, 32, 32), facts(3, 32, 32)),
        (config(3, None, None), facts(3, 17, 40)),
        (config(3, 32, 32, size=[32, 32]), facts(3, 100, 80)),
        (config(None, None, None), facts(5, 8, 8)),
        (config(3, None, None, gray="repeat"), facts(1, 8, 8)),
        (config(1, None, None, colour="luminance"), facts(3, 8, 8)),
        (config(4), facts(4)),
    ],
)
def test_what_fits(teacher: ForeignConfig, data: DataFacts) -> None:
    assert teacher_misfits(teacher, data) == []


@pytest.mark.parametrize(
    ("teacher", "data", "code", "said"),
    [
        (config(3, None, None), facts(1, 8, 8), "channel_mismatch", "preprocessing.gray set to repeat"),
        (config(1, None, None), facts(3, 8, 8), "channel_mismatch", "preprocessing.colour set to luminance"),
        (config(3, None, None, gray="repeat"), facts(4, 8, 8), "channel_mismatch", "has 4"),
        (config(3, 32, 32), facts(3, 32, 31), "shape_mismatch", "32×32, the dataset has 32×31"),
        (config(3, 32, None), facts(3, 31, 31), "shape_mismatch", "32×any"),
        (config(4), facts(5), "shape_mismatch", "4 inputs"),
        (config(4), facts(3, 8, 8), "task_mismatch", "tabular-classification"),
    ],
)
def test_what_does_not_fit_is_said_with_the_fix(teacher: ForeignConfig, data: DataFacts, code: str, said: str) -> None:
    (error,) = teacher_misfits(teacher, data)
    assert (error.pointer, error.code) == ("/teacher/model", code)
    assert said in error.detail


def test_a_model_of_this_service_wants_the_same_columns() -> None:
    of_two = facts(2).model_copy(update={"features": (Feature(name="a"), Feature(name="b"))})
    turned = of_two.model_copy(update={"features": (Feature(name="b"), Feature(name="a"))})
    own = ModelConfig.model_validate(
        {
            "architecture": {"name": "mlp", "hidden": [2]},
            "facts": of_two.model_dump(),
            "mean": [0, 0],
            "std": [1, 1],
            "parameters": 1,
            "preprocessing": "",
        }
    )
    assert teacher_misfits(own, of_two) == []
    assert [error.code for error in teacher_misfits(own, turned)] == ["column_mismatch"]
    assert [error.code for error in teacher_misfits(own, facts(3))] == ["shape_mismatch"]
