"""What the layers of a network give, by their path in `named_modules()`, without touching the network itself."""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from stillhouse.spec.errors import JobFailure

Role = Literal["student", "teacher"]


@dataclass(frozen=True)
class Outputs:
    """What a network gave for one batch."""

    logits: Tensor
    """[B, classes]."""
    features: Mapping[str, Tensor] = field(default_factory=dict)
    """Path of a layer → its output [B, …]; only of layers that were asked for."""
    ids: Tensor | None = None
    """int64 [B, k]: `logits` [B, k + 1] are those of these classes alone, and the last one is that of all others
    together, at the temperature of the losses. None: of all classes."""


@dataclass(frozen=True)
class Point:
    """A layer that can be looked at."""

    path: str
    shape: tuple[int, ...]
    """Of its output for one row: (C, H, W) of a map, (F,) of a vector."""


@dataclass(frozen=True)
class Pair:
    """A layer of the student and the layer of the teacher it learns from."""

    student: Point
    teacher: Point


def outputs(net: nn.Module, x: Tensor, paths: Iterable[str] = ()) -> Outputs:
    """Run `net` on `x` [B, …]: its logits, and the outputs of the layers at `paths`.

    A layer called several times in one pass counts with its last call. Raises JobFailure `layer_mismatch` when a layer
    gives no tensor, or when a later layer has overwritten its output in place.
    """
    wanted = tuple(paths)
    if not wanted:
        return Outputs(net(x))
    seen: dict[str, tuple[Any, int]] = {}

    def note(path: str, module: nn.Module, out: Any) -> None:
        seen[path] = (out, out._version if isinstance(out, Tensor) else 0)

    with tapped(net, wanted, note):
        logits = net(x)
    return Outputs(logits, {path: _unspoilt(path, seen.get(path)) for path in wanted})


@contextmanager
def tapped(net: nn.Module, paths: Iterable[str], note: Callable[[str, nn.Module, Any], None]) -> Iterator[None]:
    """Within the block, call `note(path, module, output)` each time one of these layers has run."""

    def hook(path: str) -> Callable[[nn.Module, Any, Any], None]:
        return lambda module, given, out: note(path, module, out)

    handles = []
    try:
        for path in paths:
            handles.append(net.get_submodule(path).register_forward_hook(hook(path)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def check_path(net: nn.Module, path: str, *, role: Role, loss: str) -> None:
    """Raise JobFailure `layer_unknown`, naming close names, when the `role` network has no layer at `path`."""
    names = [name for name, _ in net.named_modules() if name]
    if path in names:
        return
    close = difflib.get_close_matches(path, names, n=4, cutoff=0.5)
    some = close or names[:8]
    raise JobFailure(
        "layer_unknown",
        f"The {loss} loss names the layer {path!r}, and the {role} has none of that name.",
        hint=f"{'Close names are' if close else 'Its layers begin with'} {', '.join(some)}. "
        "Or leave `layers` out: then they are chosen by stage and shape.",
    )


def mismatch(detail: str, hint: str) -> JobFailure:
    """The failure of layers that exist and cannot be compared."""
    return JobFailure("layer_mismatch", detail, hint=hint)


def _unspoilt(path: str, found: tuple[Any, int] | None) -> Tensor:
    if found is None or not isinstance(found[0], Tensor):
        what = "was not called" if found is None else f"gives a {type(found[0]).__name__}"
        raise mismatch(f"The layer {path!r} {what}, and a loss compares tensors.", "Name another layer near it.")
    out: Tensor = found[0]
    version = found[1]
    if out._version != version:
        raise mismatch(
            f"The output of the layer {path!r} is overwritten in place by a later one.", "Name that later layer."
        )
    return out
