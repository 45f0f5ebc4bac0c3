"""The JSON of a torch.export program, judged and turned into steps. Nothing in it is evaluated or looked up but names
of operators in a closed list: sizes are worked out by running the steps, so its symbolic expressions are never parsed.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from distill.teachers.aten import MUST_BE_FALSE, operator_of
from stillhouse.spec.refusing import invalid, pointer, quoted

SCHEMA = 8
"""Major version of the schema of torch.export (2.5 and later)."""
DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_MEMORY_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 4: torch.preserve_format}
_STRIDED = 7
_HINT = "Export it in eval mode with torch.export.export of a current torch, and save it with torch.export.save."
_MOST_STEPS = 200_000
_EXPRESSION_WORDS = frozenset(
    {"Symbol", "Integer", "Rational", "Add", "Mul", "Pow", "Mod", "Max", "Min", "FloorDiv", "CeilDiv", "CleanDiv"}
    | {"PythonMod", "ModularIndexing", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "True", "False"}
    | {"positive", "nonnegative", "nonzero", "integer", "real"}
)
_WORD = re.compile(r"[A-Za-z_]\w*")
_SYMBOL = re.compile(r"[szu]+\d+|u\d+|zuf\d+|zf\d+")
_EXPRESSION = re.compile(r"[\w\s()+\-*/%,'=<>&|~]*")
_DEEPEST = 64


class Where:
    """The device of the rows, put in where a program names one."""


@dataclass(frozen=True)
class Named:
    """A value an earlier step gave, or an input."""

    name: str


@dataclass(frozen=True)
class Step:
    """One call of an operator."""

    call: Callable[..., Any]
    arguments: Mapping[str, Any]
    """Constants, `Named`, `Where`, or lists of them, by the operator's own names."""
    positional: bool
    """Whether the call takes no names: arithmetic on sizes."""
    results: tuple[str | tuple[str, ...] | None, ...]
    target: str


@dataclass(frozen=True)
class Program:
    """What a file says is to be computed."""

    weights: Mapping[str, str]
    """Name in the graph → name of the tensor in the archive."""
    rows: str
    """Name of the input."""
    dims: tuple[int | None, ...]
    """Its sizes; None: any."""
    dtype: torch.dtype
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]


def program(content: Mapping[str, Any]) -> Program:
    """Raises InvalidData, naming the node, for anything that is not on the list or does not fit together."""
    try:
        if content["schema_version"]["major"] != SCHEMA:
            detail = f"The program is of schema {content['schema_version']['major']}; {SCHEMA} is read."
            raise invalid("/file", "corrupt_program", detail, _HINT)
        _check_expressions(content)
        module = content["graph_module"]
        graph, signature = module["graph"], module["signature"]
        weights, rows = _inputs(signature["input_specs"])
        dims, dtype = _row(graph["tensor_values"][rows])
        known = {*weights, rows}
        steps = tuple(_steps(graph["nodes"], known, frozenset(weights)))
        outputs = tuple(_outputs(signature["output_specs"], known))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError):
        detail = "The program is not what torch.export.save writes."
        raise invalid("/file", "corrupt_program", detail, _HINT) from None
    return Program(weights, rows, dims, dtype, steps, outputs)


def _check_expressions(content: Any, depth: int = 0) -> None:
    """Symbolic sizes are not evaluated here, but other readers of the format do evaluate them."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(content, dict):
        if "expr_str" in content:
            _check_expression(content["expr_str"])
        for value in content.values():
            _check_expressions(value, depth + 1)
    elif isinstance(content, list):
        for value in content:
            _check_expressions(value, depth + 1)


def _check_expression(text: Any) -> None:
    plain = isinstance(text, str) and len(text) <= 10_000 and _EXPRESSION.fullmatch(text) is not None
    words = _WORD.findall(text) if plain else []
    if not plain or any(w not in _EXPRESSION_WORDS and not _SYMBOL.fullmatch(w) for w in words):
        detail = f"A size in the program is more than arithmetic: {quoted(str(text))}."
        raise invalid("/file", "unsafe_expression", detail, _HINT)


def _inputs(specs: list[Any]) -> tuple[dict[str, str], str]:
    weights: dict[str, str] = {}
    rows: list[str] = []
    for spec in specs:
        ((kind, said),) = spec.items()
        if kind in ("parameter", "buffer", "tensor_constant"):
            key = f"{kind}_name"
            weights[_word(said["arg"]["name"])] = _word(said[key])
        elif kind == "user_input" and "as_tensor" in said["arg"]:
            rows.append(_word(said["arg"]["as_tensor"]["name"]))
        elif kind != "constant_input" and not (kind == "user_input" and "as_none" in said["arg"]):
            detail = f"The program needs an input of the kind {quoted(kind)}; tensors alone are read."
            raise invalid("/file", "custom_op", detail, _HINT)
    if len(rows) != 1:
        detail = f"The program takes {len(rows)} tensors; one is needed, the rows."
        raise invalid("/file", "unclear_input", detail, "Export a module whose forward takes the rows alone.")
    return weights, rows[0]


def _row(meta: Mapping[str, Any]) -> tuple[tuple[int | None, ...], torch.dtype]:
    dims = tuple(int(size["as_int"]) if "as_int" in size else None for size in meta["sizes"])
    if len(dims) not in (2, 4) or any(side is not None and side < 1 for side in dims):
        detail = f"The program takes a tensor of {len(dims)} axes: neither rows × inputs nor images."
        raise invalid("/file", "unclear_input", detail, "Export it with an input of two or four axes.")
    return dims, DTYPES[meta["dtype"]]


def _steps(nodes: list[Any], known: set[str], weights: frozenset[str]) -> Iterator[Step]:
    if len(nodes) > _MOST_STEPS:
        raise ValueError("too many steps")
    for node in nodes:
        target = node["target"]
        call = operator_of(target) if isinstance(target, str) else None
        at = pointer("nodes", str(target))
        if call is None:
            detail = f"The program calls {quoted(str(target))}, which is not on the list of operators that are run."
            hint = "Export it with operators of aten alone, in eval mode, or upload it as ONNX."
            raise invalid(at, "custom_op", detail, hint)
        arguments = {_word(entry["name"]): _value(entry["arg"], known) for entry in node["inputs"]}
        _check_trained(target, arguments, weights, at)
        results = tuple(_result(entry) for entry in node["outputs"])
        known.update(name for result in results for name in _names(result))
        yield Step(call, arguments, not target.startswith("torch.ops."), results, target)


def _check_trained(target: str, arguments: Mapping[str, Any], weights: frozenset[str], at: str) -> None:
    """No node draws random numbers or changes a weight: both happen in training mode alone."""
    name = target.split(".")[3] if target.startswith("torch.ops.") else ""
    trains = name in MUST_BE_FALSE and arguments.get(MUST_BE_FALSE[name]) is not False
    drops = name == "scaled_dot_product_attention" and arguments.get("dropout_p", 0) != 0
    first = next(iter(arguments.values()), None)
    writes = name.endswith("_") and isinstance(first, Named) and first.name in weights
    if trains or drops or writes:
        detail = (
            f"The program was exported in training mode: {quoted(target)} changes what it is or draws random numbers."
        )
        raise invalid(at, "random_outputs", detail, "Call eval() before torch.export.export.")


def _value(argument: Mapping[str, Any], known: set[str]) -> Any:
    ((kind, value),) = argument.items()
    if kind == "as_none":
        return None
    if kind in ("as_tensor", "as_optional_tensor", "as_sym_int", "as_sym_float", "as_sym_bool"):
        return _reference(value, known)
    if kind in ("as_tensors", "as_optional_tensors", "as_sym_ints", "as_sym_floats", "as_sym_bools"):
        return [_reference(part, known) for part in value]
    if kind in ("as_int", "as_float", "as_bool"):
        return _number(value)
    if kind in ("as_ints", "as_floats", "as_bools"):
        return [_number(part) for part in value]
    if kind == "as_string" and isinstance(value, str) and len(value) <= 1000:
        return value  # a mode of padding, an equation of einsum: never a path, as no operator on the list takes one
    if kind == "as_scalar_type":
        return DTYPES[value]
    if kind == "as_memory_format":
        return _MEMORY_FORMATS[value]
    if kind == "as_layout" and value == _STRIDED:
        return torch.strided
    if kind == "as_device":
        return Where()
    raise ValueError(kind)


def _reference(value: Mapping[str, Any], known: set[str]) -> Any:
    """A tensor or size by name, a plain number, or None."""
    if "as_none" in value:
        return None
    inner = value.get("as_tensor", value)
    for key in ("as_int", "as_float", "as_bool"):
        if key in inner:
            return _number(inner[key])
    name = _word(inner["as_name"] if "as_name" in inner else inner["name"])
    if name not in known:
        raise ValueError(name)
    return Named(name)


def _number(value: Any) -> int | float | bool:
    if isinstance(value, str):  # JSON has no infinity
        return {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}[value]
    if not isinstance(value, int | float):
        raise TypeError
    return value


def _result(entry: Mapping[str, Any]) -> str | tuple[str, ...] | None:
    ((kind, value),) = entry.items()
    if kind == "as_none":
        return None
    if kind == "as_tensors":
        return tuple(_word(part["name"]) for part in value)
    if kind == "as_tensor":
        return _word(value["name"])
    if kind in ("as_sym_int", "as_sym_float", "as_sym_bool"):
        return _word(value["as_name"])
    raise ValueError(kind)


def _names(result: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return () if result is None else (result,) if isinstance(result, str) else result


def _outputs(specs: list[Any], known: set[str]) -> Iterator[str]:
    for spec in specs:
        ((kind, said),) = spec.items()
        if kind in ("buffer_mutation", "parameter_mutation"):
            detail = "The program changes its own weights when it runs: it was exported in training mode."
            raise invalid("/file", "random_outputs", detail, "Call eval() before torch.export.export.")
        if kind == "user_output" and "as_tensor" in said["arg"]:
            name = _word(said["arg"]["as_tensor"]["name"])
            if name not in known:
                raise ValueError(name)
            yield name


def _word(name: Any) -> str:
    if not isinstance(name, str) or not 0 < len(name) <= 1000:
        raise ValueError
    return name
