"""Weights of a file into the places of a network: cleaned names, and what to say when they do not fit."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from distill.teachers.tensors import State
from stillhouse.spec.errors import FieldError, InvalidData
from stillhouse.spec.refusing import all_invalid, pointer, quoted, some

_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.", "timm_model.", "student.")
_COUNTERS = ("total_ops", "total_params")
"""What a well-known profiler leaves in state dicts."""

_SEEN = "num_batches_tracked"


def cleaned(state: State, expected: Iterable[str]) -> tuple[State, list[str]]:
    """The state under the names of the network as far as stripping prefixes gets there; and notes.

    Tensors outside a stripped prefix, a loss's weights for example, are left out.
    """
    wanted = set(expected)
    best, prefix = state, ""
    candidate, stripped = state, ""
    while part := _common_prefix(candidate):
        candidate = _below(candidate, part)
        stripped += part
        if len(wanted & candidate.keys()) > len(wanted & best.keys()):
            best, prefix = candidate, stripped
    kept = {name: value for name, value in best.items() if name.rpartition(".")[2] not in _COUNTERS}
    notes = [f"The prefix {prefix!r} was taken off the names of the tensors."] if prefix else []
    if len(best) < len(state):
        notes.append(f"{len(state) - len(best)} tensors outside {prefix!r} were left out.")
    return kept, notes


def unwrapped(state: State) -> State:
    """The state without any wrapper's prefix: how it would be named if nobody had wrapped the network."""
    while part := _common_prefix(state):
        state = _below(state, part)
    return state


def _common_prefix(state: State) -> str:
    """The wrapper that more than half of the names start with, or nothing."""
    return next((p for p in _PREFIXES if sum(name.startswith(p) for name in state) * 2 > len(state)), "")


def _below(state: State, prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def by_name(state: State, expected: Mapping[str, Tensor]) -> tuple[State, list[FieldError]]:
    """`state` with exactly the names of `expected`, or what keeps it from that: missing, unexpected, wrong shapes."""
    state = dict(state)
    for name, value in expected.items():
        # Counters of batches seen: older files lack them, and nothing but training looks at them.
        if name.endswith(_SEEN) and name not in state:
            state[name] = torch.zeros((), dtype=value.dtype)
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    shaped = [name for name in expected if name in state and state[name].shape != expected[name].shape]
    return state, [
        *_listed("missing_tensors", "The file lacks", [(name, _text(expected[name].shape)) for name in missing]),
        *_listed("unexpected_tensors", "The network has no", [(name, _text(state[name].shape)) for name in unexpected]),
        *_listed(
            "wrong_shapes",
            "The network has another shape of",
            [(name, f"{_text(state[name].shape)}, wanted {_text(expected[name].shape)}") for name in shaped],
        ),
        *_types(state, expected),
    ]


def by_order(state: State, expected: Mapping[str, Tensor]) -> State | None:
    """The tensors of the file given the network's names one after the other; None when a shape differs.

    Counters of batches seen may be there or not.
    """
    renamed = in_order(state, expected)
    return renamed if all(value.shape == expected[name].shape for name, value in renamed.items()) and renamed else None


def in_order(state: State, expected: Mapping[str, Tensor]) -> State:
    """The tensors under the names of `expected`, first to first, whatever their shapes; empty when they are not as
    many, with or without counters."""
    for given, wanted in ((state, expected), (_uncounted(state), _uncounted(expected))):
        if len(given) == len(wanted):
            return dict(zip(wanted, given.values(), strict=True))
    return {}


def _uncounted(state: Mapping[str, Tensor]) -> State:
    return {name: value for name, value in state.items() if not name.endswith(_SEEN)}


def refuse(errors: list[FieldError], what: str, hint: str) -> InvalidData:
    """The weights do not fit `what`."""
    return all_invalid(f"The weights do not fit {what}.", errors, hint)


def load(network: nn.Module, state: State) -> None:
    """Put weights that fit into the network, as float32."""
    own = network.state_dict()
    wide = {name: value.to(own[name].dtype) for name, value in state.items()}
    network.load_state_dict(wide, assign=False)


def _types(state: State, expected: Mapping[str, Tensor]) -> list[FieldError]:
    odd = [n for n in expected if n in state and state[n].is_floating_point() != expected[n].is_floating_point()]
    said = [(name, str(state[name].dtype).removeprefix("torch.")) for name in odd]
    return _listed("wrong_types", "Quantised or otherwise not numbers with a fraction, where those are needed:", said)


def _listed(code: str, sentence: str, found: list[tuple[str, str]]) -> list[FieldError]:
    if not found:
        return []
    shown = some([f"{quoted(name)} ({more})" for name, more in found])
    return [FieldError(pointer=pointer("tensors", found[0][0]), code=code, detail=f"{sentence} {shown}.")]


def _text(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "a single number"
