"""Weights from strangers: safetensors, and checkpoints of torch.save, never with a pickle that runs anything."""

import pickle
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stillhouse.spec.refusing import invalid, pointer, quoted, some

State = dict[str, Tensor]
KEPT = (torch.float32, torch.float16, torch.bfloat16)
"""Types weights are stored in. They are loaded as float32."""

_MEANINGS = {
    "header too large": "its header claims to be larger than any header may be",
    "invalid header length": "its header claims to be longer than the file",
    "header too small": "it is too short to have a header",
    "not fully covered": "its header speaks of more or fewer bytes than follow: it is cut short or longer",
    "invalid offset": "two of its tensors overlap, or there is a hole between them",
    "invalid shape": "the size of a tensor contradicts its shape and type",
    "overflow": "a tensor is larger than any memory",
    "invalid UTF-8": "its header is not UTF-8",
    "in header": "its header is not what safetensors writes",
}
"""What the library says of a file, in a sentence for its owner."""
# Where training programs put the weights, in the order they are looked for; averaged ones last.
_WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "module", "weights", "params")
_AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "ema_model")


def read_safetensors(path: Path, at: str = "/file") -> State:
    """All tensors of the file, mapped. Raises InvalidData when it is damaged or lies about itself."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is not a dict)
    except (SafetensorError, ValueError, OverflowError, RecursionError) as error:
        said = str(error)
        meaning = next((text for key, text in _MEANINGS.items() if key in said), "it is damaged")
        detail = f"The weights are not a whole safetensors file: {meaning}."
        raise invalid(at, "corrupt_tensors", detail, "Write it anew with safetensors.torch.save_file.") from None


def read_checkpoint(path: Path) -> tuple[State, list[str]]:
    """The tensors of a file of torch.save, on the CPU, unwrapped; and notes on what was taken.

    Raises InvalidData when it is damaged, holds no tensors, or anything but plain tensors and numbers.
    """
    try:
        with warnings.catch_warnings():
            # Of old formats and of storages that have to be asked for otherwise: nothing the caller can act on.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        detail = "The checkpoint holds Python objects beside tensors, and objects are never made from an upload"
        detail += f": {_named(error)}." if _named(error) else "."
        hint = "Save the weights alone: safetensors.torch.save_file(model.state_dict(), 'model.safetensors')."
        raise invalid("/file", "unsafe_pickle", detail, hint) from None
    except (RuntimeError, ValueError, EOFError, KeyError, TypeError, IndexError, AttributeError, OSError) as error:
        if "alloc" in str(error) or "not enough memory" in str(error):
            raise MemoryError from None
        detail = "The checkpoint cannot be read: it is cut short or damaged."
        raise invalid("/file", "corrupt_tensors", detail, "Write it anew with torch.save or safetensors.") from None
    return _unwrapped(content)


def write(state: State, path: Path) -> None:
    """The stored form: a safetensors file, each tensor in a type of `KEPT` or a plain integer type."""
    save_file({name: _storable(value) for name, value in state.items()}, path, metadata={"format": "pt"})


def check_finite(state: State, *, infinity: bool = False) -> None:
    """Raises InvalidData naming the first tensors that hold NaN, or infinity where that is not allowed."""
    floats = {name: value for name, value in state.items() if value.is_floating_point()}
    if bad := [name for name, value in floats.items() if not _sound(value, infinity=infinity)]:
        detail = f"The weights hold {'NaN' if infinity else 'NaN or infinity'}: {some(list(map(quoted, bad)))}."
        at = pointer("tensors", bad[0])
        raise invalid(at, "weights_not_finite", detail, "Upload a checkpoint from before the training diverged.")


def _storable(value: Tensor) -> Tensor:
    kept = value.dtype in KEPT or not value.is_floating_point()
    return (value if kept else value.float()).contiguous()


def _sound(value: Tensor, *, infinity: bool) -> bool:
    if value.dtype not in (*KEPT, torch.float64):
        value = value.float()  # floats of 8 bits have no such test
    return not bool(value.isnan().any()) if infinity else bool(value.isfinite().all())


def _named(error: pickle.UnpicklingError) -> str:
    """The object a checkpoint asked for, out of torch's long message."""
    _, found, rest = str(error).partition("GLOBAL ")
    name = rest.split()[0] if found and rest.split() else ""
    return quoted(name) if name.replace(".", "").replace("_", "").isalnum() else ""


def _unwrapped(content: Any) -> tuple[State, list[str]]:
    taken: list[str] = []
    left: list[str] = []
    for _ in range(4):
        if not isinstance(content, dict) or _is_state(content):
            break
        inside = [key for key in (*_WRAPPERS, *_AVERAGED) if isinstance(content.get(key), dict)]
        if not inside:
            break
        taken.append(inside[0])
        left += [key for key in inside[1:] if _is_state(content[inside[1]])]
        content = content[inside[0]]
    if not isinstance(content, dict) or not _is_state(content):
        detail = f"The checkpoint has no weights: it holds {_kind(content)}, not a dict from names to tensors."
        raise invalid("/file", "no_weights", detail, "Save model.state_dict().")
    notes = [f"The weights were taken from {'.'.join(taken)} of the checkpoint."] if taken else []
    if left:
        notes.append(f"The checkpoint also has {some(left)}: to use those, save them alone.")
    return _tensors(content.items()), notes


def _is_state(content: dict[Any, Any]) -> bool:
    tensors = sum(isinstance(value, Tensor) for value in content.values())
    return tensors > 0 and not any(isinstance(content.get(key), dict) for key in (*_WRAPPERS, *_AVERAGED))


def _tensors(items: Iterable[tuple[Any, Any]]) -> State:
    # Beside weights, a state dict may hold whatever get_extra_state gave; it is no tensor and no weight.
    state = {str(key): value.detach() for key, value in items if isinstance(value, Tensor)}
    if odd := [f"{quoted(name)} ({kind})" for name, value in state.items() if (kind := _oddity(value))]:
        at = pointer("tensors", next(name for name, value in state.items() if _oddity(value)))
        detail = f"The checkpoint has tensors that are not plain numbers one after the other: {some(odd)}."
        raise invalid(at, "wrong_types", detail, "Save them dense, with values, as float numbers.")
    return state


def _oddity(value: Tensor) -> str:
    """What keeps a tensor from being read like any other; empty for most."""
    if value.is_meta:
        return "without values, on the device meta"
    if value.is_quantized:
        return "quantised"
    return "" if value.layout is torch.strided else str(value.layout).removeprefix("torch.")


def _kind(content: Any) -> str:
    if isinstance(content, dict):
        return f"a dict of {some([quoted(str(key)) for key in content])}" if content else "an empty dict"
    return "one tensor" if isinstance(content, Tensor) else f"a {type(content).__name__}"
