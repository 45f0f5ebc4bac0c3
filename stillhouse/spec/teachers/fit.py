"""Whether a stored teacher can look at the rows of a dataset. Its classes are `label_map`'s business."""

from stillhouse.spec.errors import FieldError
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.teachers.config import ForeignConfig


def teacher_misfits(
    config: ModelConfig | ForeignConfig, facts: DataFacts, pointer: str = "/teacher/model"
) -> list[FieldError]:
    """What keeps the teacher from taking this data, each with its fix; nothing when it can."""
    found = _own(config, facts) if isinstance(config, ModelConfig) else _foreign(config, facts)
    return [FieldError(pointer=pointer, code=code, detail=detail) for code, detail in found]


def _own(config: ModelConfig, facts: DataFacts) -> list[tuple[str, str]]:
    took = config.facts
    if took.shape != facts.shape:
        detail = f"The teacher takes rows of shape {list(took.shape)}, the dataset has {list(facts.shape)}."
        return [("shape_mismatch", detail)]
    if took.features != facts.features:
        detail = "The teacher was made for other columns: they must be the same, in the same order."
        return [("column_mismatch", detail)]
    return []


def _foreign(config: ForeignConfig, facts: DataFacts) -> list[tuple[str, str]]:
    if config.task != facts.task:
        return [("task_mismatch", f"The teacher is for {config.task}, the dataset for {facts.task}.")]
    if len(facts.shape) == 1:
        if config.shape[0] in (None, facts.shape[0]):
            return []
        detail = f"The teacher takes {config.shape[0]} inputs, a row of the dataset has {facts.shape[0]}."
        return [("shape_mismatch", detail)]
    return [*_channels(config, facts.shape[0]), *_size(config, facts.shape[1:])]


def _channels(config: ForeignConfig, given: int) -> list[tuple[str, str]]:
    wanted, preparing = config.shape[0], config.preprocessing
    if wanted in (None, given):
        return []
    detail = f"The teacher takes images of {wanted} channels, the dataset has {given}"
    if (given, wanted) == (1, 3):
        if preparing.gray == "repeat":
            return []
        detail += ": upload it with preprocessing.gray set to repeat to show it gray images three times over"
    if (given, wanted) == (3, 1):
        if preparing.colour == "luminance":
            return []
        detail += ": upload it with preprocessing.colour set to luminance to show it the brightness of colour images"
    return [("channel_mismatch", f"{detail}.")]


def _size(config: ForeignConfig, given: tuple[int, ...]) -> list[tuple[str, str]]:
    wanted = config.shape[1:]
    if config.preprocessing.size is not None or all(w in (None, g) for w, g in zip(wanted, given, strict=True)):
        return []
    sides = "×".join("any" if side is None else str(side) for side in wanted)
    detail = f"The teacher takes images of {sides}, the dataset has {given[0]}×{given[1]}"
    return [("shape_mismatch", f"{detail}: upload it with preprocessing.size to have them resized.")]
