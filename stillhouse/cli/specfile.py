"""Read a job spec from YAML or JSON, and remember on which line each value stood.

YAML is read by the rules of version 1.2 (1e-3 is a number, `no` and `010` are not what 1.1 makes of them), into plain
dicts, lists, strings, numbers, booleans and None. A key given twice, an alias or a tag is an error: the first two hide
mistakes and bombs, and nothing here needs the third.
"""

import json
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from stillhouse.spec.errors import InvalidSpec

_LIMIT_BYTES = 1024 * 1024
_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True, kw_only=True)
class SpecFile:
    """A parsed file."""

    name: str
    """For messages: the path, or `stdin`."""
    data: Any
    lines: dict[str, int] = field(default_factory=dict)
    """JSON pointer → 1-based line of the key or item. Empty for JSON."""

    def line(self, pointer: str) -> int:
        """Line of a field; of what should hold it when it is missing; 0 when that is not known."""
        while pointer and pointer not in self.lines:
            pointer = pointer.rpartition("/")[0]
        return self.lines.get(pointer, 0)

    def place(self, pointer: str) -> str:
        """Where a field stands, for people: `job.yaml:7 /student/hidden`."""
        line = self.line(pointer)
        return f"{self.name}{f':{line}' if line else ''} {pointer or '(the whole spec)'}"


def read_spec_file(path: str) -> SpecFile:
    """Read a file, or standard input for `-`. Raises InvalidSpec with file and line, or OSError."""
    name = "stdin" if path == "-" else path
    raw = _bytes(path)
    if len(raw) > _LIMIT_BYTES:
        raise InvalidSpec(f"{name} is longer than 1 MiB: that is no job spec.")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InvalidSpec(f"{name}, line {line}: this is not UTF-8 text.", hint="Save the file as UTF-8.") from error
    try:
        if path.endswith(".json") or (path == "-" and text.lstrip().startswith("{")):
            return SpecFile(name=name, data=_checked(_json(name, text), name))
        return _yaml(name, text)
    except RecursionError as error:
        raise InvalidSpec(f"{name} is nested too deeply to be a job spec.") from error


def _bytes(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read(_LIMIT_BYTES + 1)
    with Path(path).open("rb") as file:
        return file.read(_LIMIT_BYTES + 1)


def _checked(data: Any, name: str) -> dict[str, Any]:
    if data is None:
        raise InvalidSpec(f"{name} is empty.", hint="A spec needs at least teacher, dataset and student.")
    if not isinstance(data, dict):
        raise InvalidSpec(f"{name} must hold fields such as `teacher:` and `student:`.")
    try:
        json.dumps(data, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InvalidSpec(f"{name} holds half a character (a lone \\ud800 … \\udfff escape).") from error
    return data


def _json(name: str, text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            raise InvalidSpec(f"{name}: the key {twice!r} is given twice in one object.")
        return made

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise InvalidSpec(f"{name}, line {error.lineno}, column {error.colno}: {error.msg.lower()}.") from error


def _yaml(name: str, text: str) -> SpecFile:
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        data = None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        raise InvalidSpec(_place(name, error), hint=_yaml_hint(error)) from error
    except yaml.YAMLError as error:
        raise InvalidSpec(f"{name} holds characters that YAML does not allow.") from error
    lines: dict[str, int] = {}
    if node is not None:
        _note_lines(node, "", lines)
    return SpecFile(name=name, data=_checked(data, name), lines=lines)


class _Loader(yaml.SafeLoader):
    """SafeLoader's parser with the core schema of YAML 1.2, and without aliases, merges and repeated keys."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 (PyYAML's own protocol)

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Refuse `*alias`: ten lines of them unfold to gigabytes."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(None, None, "aliases (*name) are not read", event.start_mark)
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: Any) -> Any:
        """Join the halves of characters that JSON writes as two escapes."""
        node = super().compose_scalar_node(anchor)
        node.value = node.value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """A dict with string keys, each given once."""
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode):
                _refuse("a key must be a name", key_node)
            if key in made:
                _refuse(f"the key {key!r} is given twice", key_node)
            made[key] = self.construct_object(value_node, deep=True)
        return made


def _refuse(problem: str, node: yaml.Node) -> NoReturn:
    raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def _number(loader: _Loader, node: yaml.ScalarNode) -> int | float:
    text = node.value
    if re.fullmatch(r"[-+]?[0-9]+", text):
        # Digits without end would take time that grows with their square.
        return int(text) if len(text) <= 30 else float(text)
    if text[:2] in ("0x", "0o"):
        return int(text, 0)
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


def _unknown_tag(loader: _Loader, node: yaml.Node) -> NoReturn:
    _refuse(f"the tag {node.tag} is not read", node)


def _map(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    return loader.construct_mapping(node)


def _sequence(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    return loader.construct_sequence(node, deep=True)


# https://yaml.org/spec/1.2.2/#103-core-schema
for _name, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,16}"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(f"^(?:{_pattern})$"), _first)
_Loader.yaml_constructors = {}
_Loader.add_constructor(_TAG + "null", lambda loader, node: None)
_Loader.add_constructor(_TAG + "bool", lambda loader, node: node.value.lower() == "true")
_Loader.add_constructor(_TAG + "float", _number)
_Loader.add_constructor(_TAG + "str", lambda loader, node: node.value)
_Loader.add_constructor(_TAG + "map", _map)
_Loader.add_constructor(_TAG + "seq", _sequence)
_Loader.add_constructor(None, _unknown_tag)


def _note_lines(node: yaml.Node, pointer: str, lines: dict[str, int]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = f"{pointer}/{key.value.replace('~', '~0').replace('/', '~1')}"
            lines[below] = key.start_mark.line + 1
            _note_lines(value, below, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines[f"{pointer}/{index}"] = item.start_mark.line + 1
            _note_lines(item, f"{pointer}/{index}", lines)


def _place(name: str, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
    problem = (error.problem or error.context or "this is not YAML").replace("'\\t'", "a tab")
    return f"{name}{where}: {problem}."


def _yaml_hint(error: yaml.MarkedYAMLError) -> str | None:
    problem = error.problem or ""
    if "'\\t'" in problem:
        return "Indent with spaces."
    if "alias" in problem:
        return "Write the value out."
    if "single document" in (error.context or ""):
        return "One file holds one job; submit the others separately."
    return None
