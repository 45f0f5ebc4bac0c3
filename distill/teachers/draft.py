"""What every reader of a format hands on: a network, and what its file says of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ValidationError
from torch import nn

from stillhouse.spec.refusing import invalid
from stillhouse.spec.teachers import Network, Preprocessing, StatedPreprocessing

OPTIONS = "/options"


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A teacher that was read but not yet tried."""

    network: Network
    module: nn.Module
    """Prepared rows → what the network gives, in eval mode, on the CPU."""
    write: Callable[[Path], None]
    """Writes the stored file."""
    shape: tuple[int | None, ...]
    """One row, as in `ForeignConfig`."""
    preprocessing: Preprocessing
    parameters: int
    gives: Literal["logits", "probabilities"] = "logits"
    classes: tuple[str, ...] | None = None
    """Names the file itself has."""
    notes: list[str] = field(default_factory=list)


def settled(stated: StatedPreprocessing, own: Preprocessing) -> Preprocessing:
    """What the caller states, and `own` for the rest.

    Raises InvalidData when the two do not go together.
    """
    changes = {name: value for name, value in stated if value is not None}
    if "size" in changes and "crop" not in changes and changes["size"] != own.size:
        changes["crop"] = 1.0  # that of another size
    merged = {**dict(own), **changes}
    try:
        return Preprocessing.model_validate(merged)
    except ValueError as error:
        detail = f"The preprocessing contradicts itself: {_sentence(error)}."
        raise invalid(f"{OPTIONS}/preprocessing", "preprocessing_misfit", detail) from None


def check_preprocessing(preparing: Preprocessing, shape: tuple[int | None, ...]) -> None:
    """Raises InvalidData for preprocessing that cannot feed rows of `shape`, naming the field."""
    wide = shape[0]
    for name in ("mean", "std"):
        count = len(getattr(preparing, name))
        if count > 1 and count != wide:
            what = "channels" if len(shape) == 3 else "inputs"
            detail = f"{name} has {count} numbers, and the network's {what} are {wide or 'any number'}: state one each."
            raise _misfit(name, detail)
    if len(shape) == 1:
        for name, default in Preprocessing():
            if name not in ("scale", "mean", "std") and getattr(preparing, name) != default:
                raise _misfit(name, f"{name} is for images, and the network takes rows of {wide} inputs.")
        return
    if preparing.channels == "bgr" and wide != 3:
        raise _misfit("channels", f"bgr is for networks of 3 channels, this one takes {wide or 'any number'}.")
    if preparing.gray and wide != 3:
        raise _misfit("gray", f"repeat is for networks of 3 channels, this one takes {wide or 'any number'}.")
    if preparing.colour and wide != 1:
        raise _misfit("colour", f"luminance is for networks of 1 channel, this one takes {wide or 'any number'}.")
    _check_size(preparing, shape[1:])


def _check_size(preparing: Preprocessing, wanted: tuple[int | None, ...]) -> None:
    if preparing.size is None:
        return
    if any(want not in (None, side) for want, side in zip(wanted, preparing.size, strict=True)):
        fixed = "×".join("any" if side is None else str(side) for side in wanted)
        given = "×".join(map(str, preparing.size))
        raise _misfit("size", f"The network takes images of {fixed}, and size is {given}.")


def _misfit(name: str, detail: str) -> Exception:
    return invalid(f"{OPTIONS}/preprocessing/{name}", "preprocessing_misfit", detail)


def _sentence(error: ValueError) -> str:
    said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
    return said.removeprefix("Value error, ")
