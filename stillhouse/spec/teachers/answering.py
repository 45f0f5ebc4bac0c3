"""In which classes a stored teacher answers, and how they become those of a dataset."""

from collections import Counter
from collections.abc import Mapping

from stillhouse.spec.errors import FieldError
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.teachers.config import ForeignConfig
from stillhouse.spec.teachers.label_map import POINTER, LabelMap, map_labels


def answers_in(config: ModelConfig | ForeignConfig) -> tuple[tuple[str, ...] | None, int]:
    """The names of its classes, None when nobody said them, and how many there are."""
    if isinstance(config, ModelConfig):
        return config.facts.classes, len(config.facts.classes)
    return config.classes, config.outputs


def map_of(
    config: ModelConfig | ForeignConfig,
    classes: tuple[str, ...],
    stated: Mapping[str, str] | None,
    pointer: str = "/teacher",
) -> tuple[LabelMap | None, list[FieldError]]:
    """`map_labels` for a stored teacher; `pointer` is where the spec describes it."""
    names, count = answers_in(config)
    found, wrong = map_labels(names, count, classes, stated)
    return found, [
        e.model_copy(update={"pointer": f"{pointer}/label_map{e.pointer.removeprefix(POINTER)}"}) for e in wrong
    ]


def in_writing(config: ModelConfig | ForeignConfig, found: LabelMap, classes: tuple[str, ...]) -> dict[str, str] | None:
    """`found` as a spec states it, every class by its name where it has one of its own; None when nothing changes
    because the classes are the dataset's own."""
    if found.by == "same":
        return None
    names, count = answers_in(config)
    often = Counter(names)
    keys = [name if often[name] == 1 else str(index) for index, name in enumerate(names or [""] * count)]
    return {key: classes[to] for key, to in zip(keys, found.to, strict=True) if to >= 0}
