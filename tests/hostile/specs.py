"""Hostile job specs and other JSON bodies."""

import copy
import gzip
import json
from typing import Any

from tests.core.test_outbound import CLOSED
from tests.hostile.case import Case
from tests.house import SPEC

JSON = {"Content-Type": "application/json"}
JOBS = "/v1/jobs?validate_only=true"


def spec(**changes: Any) -> bytes:
    return json.dumps(SPEC | changes).encode()


def nested(depth: int) -> dict[str, Any]:
    inner: Any = {"train": {"architecture": {"name": "mlp"}}}
    for _ in range(depth):
        inner = {"ensemble": {"teachers": [inner, inner]}}
    return copy.deepcopy(inner)  # type: ignore[no-any-return]


def wrong(title: str, pointer: str, entry: str = "", /, **changes: Any) -> Case:
    """A spec with one field that must be refused."""
    return field(title, spec(**changes), pointer, entry)


def field(name: str, body: bytes, pointer: str, entry: str = "", code: str = "invalid_spec", status: int = 422) -> Case:
    return Case(
        name=name, body=lambda: body, path=JOBS, headers=JSON, status=status, code=code, entry=entry, pointer=pointer
    )


def no_json(name: str, body: bytes, entry: str, pointer: str = "") -> Case:
    return field(name, body, pointer, entry, code="invalid")


BIG = 10**400
_KD = {"kind": "kd"}

CASES: list[Case] = [
    # The form of the body
    no_json("no body", b"", "not_json"),
    no_json("a body of NULs", bytes(1000), "not_json"),
    no_json("a body of UTF-16", spec().decode().encode("utf-16"), "not_utf8"),
    no_json("a byte order mark before JSON", b"\xef\xbb\xbf" + spec(), "not_json"),
    no_json("invalid UTF-8 in a name", b'{"name": "\xc3\x28"}', "not_utf8"),
    no_json("a surrogate in UTF-8 in a name", b'{"name": "\xed\xa0\x80"}', "not_utf8"),
    no_json("brackets without end", b"[" * 500_000, "too_deep"),
    no_json("objects 100,000 deep", b'{"a":' * 100_000, "too_deep"),
    no_json("quotes without end", b'"' * 500_000 + b'"' * 3, "not_json"),
    no_json("backslashes without end", b'"' + b"\\" * 500_001, "not_json"),
    no_json("a number of 500,000 digits", b'{"temperature": ' + b"9" * 500_000 + b"}", "number_too_long"),
    no_json("an exponent of 100 digits", b'{"temperature": 1e' + b"9" * 100 + b"}", "not_finite", "/temperature"),
    no_json("NaN in a spec", b'{"temperature": NaN}', "not_finite", "/temperature"),
    no_json("minus infinity deep inside", b'{"a": [{"b~/": [-Infinity]}]}', "not_finite", "/a/0/b~0~1/0"),
    no_json("the same key twice", b'{"teacher": {}, "teacher": {}}', "duplicate_key", "/teacher"),
    no_json("the same key twice, once escaped", b'{"name": "a", "n\\u0061me": "b"}', "duplicate_key", "/name"),
    no_json("a comment", b'{"name": "a" /* b */}', "not_json"),
    no_json("a trailing comma", b'{"name": "a",}', "not_json"),
    no_json("single quotes", b"{'name': 'a'}", "not_json"),
    no_json("YAML with an object", b"!!python/object/apply:os.system ['true']", "not_json"),
    no_json("XML with an entity", b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>', "not_json"),
    field("half a surrogate pair", b'{"name": "\\ud800"}', "", "json_invalid"),
    field("a list for a spec", b"[]", "", "not_an_object"),
    field("a number for a spec", b"1e308", "", "not_an_object"),
    field("more than a body may have", b" " * 1_100_000, "", code="too_large", status=413),
    # Fields
    wrong("20,000 unknown fields", "/k", "unknown_field", **{f"k{i}": i for i in range(20_000)}),
    wrong("60,000 layers of text", "/student/hidden", "too_long", student={"name": "mlp", "hidden": ["a"] * 60_000}),
    wrong("a field of Object.prototype", "/__proto__", "unknown_field", __proto__={"admin": True}),
    wrong("a field of a megabyte", "/x", "unknown_field", **{"x" * 900_000: 1}),
    wrong("a class of Python", "/student", "unknown_choice", student={"name": "__class__"}),
    wrong("a path to an object", "/student", "unknown_choice", student={"name": "os.system"}),
    wrong("10^400 for a number", "/training/epochs", training={"epochs": BIG}),
    wrong("10^400 for a temperature", "/temperature", temperature=BIG),
    wrong("2^63 epochs", "/training/epochs", "less_than_equal", training={"epochs": 2**63}),
    wrong("-2^63 epochs", "/training/epochs", "greater_than_equal", training={"epochs": -(2**63)}),
    wrong("2^31 for a seed", "/training/seed", "less_than", training={"seed": 2**31}),
    wrong("the smallest number for a temperature", "/temperature", temperature=5e-324),
    wrong("true for a number", "/temperature", "float_type", temperature=True),
    wrong("a number as text", "/temperature", "float_type", temperature="4"),
    wrong("Arabic digits", "/temperature", "float_type", temperature="٤"),
    wrong("null everywhere", "/teacher", "not_an_object", teacher=None, dataset=None, student=None),
    wrong("a list for a union", "/losses/0", losses=[[_KD]]),
    wrong("a text for a union", "/losses/0", losses=["kd"]),
    wrong("a number for a kind", "/losses/0", losses=[{"kind": 5}]),
    wrong("a list for a kind", "/losses/0", losses=[{"kind": ["kd"]}]),
    wrong("an object for a kind", "/losses/0", losses=[{"kind": {"kind": "kd"}}]),
    wrong("fields of another kind", "/losses/0/label_smoothing", "unknown_field", losses=[_KD | {"label_smoothing": 0.1}]),
    no_json("50,000 losses", spec(losses=[_KD] * 50_000), "too_many_values"),
    no_json("300,000 empty objects", b"[" + b"{}," * 299_999 + b"{}]", "too_many_values"),
    wrong("15,000 losses of a kind there is not", "/losses", "too_long", losses=[{"kind": "x"}] * 15_000),
    wrong("100,000 layers", "/student/hidden", "too_long", student={"name": "mlp", "hidden": [1] * 100_000}),
    wrong("layers of 2^62 units", "/student/hidden/0", "less_than_equal", student={"name": "mlp", "hidden": [2**62]}),
    wrong("a network beyond all memory", "/student", student={"name": "mlp", "hidden": [65_536] * 8}),
    wrong("ensembles of ensembles", "/teacher", teacher=nested(4)),
    wrong("two teachers at once", "/teacher", "contradiction", teacher=SPEC["teacher"] | {"model": "mdl_" + "0" * 26}),
    wrong("a job's id for a dataset", "/dataset/id", "string_pattern_mismatch", dataset={"id": "job_" + "0" * 26}),
    wrong("a dataset's id for a model", "/teacher/model", "string_pattern_mismatch", teacher={"model": "ds_" + "0" * 26}),
    wrong("an id with a line break at its end", "/dataset/id", "string_pattern_mismatch", dataset={"id": "ds_" + "0" * 26 + "\n"}),
    wrong("an id in full-width letters", "/dataset/id", "string_pattern_mismatch", dataset={"id": "ｄｓ_" + "0" * 26}),
    wrong("a dataset nobody has", "/dataset/id", "unknown_dataset", dataset={"id": "ds_" + "0" * 26}),
    wrong("a model nobody has", "/teacher/model", "unknown_model", teacher={"model": "mdl_" + "z" * 26}),
    wrong("a path for a builtin", "/dataset/builtin", "unknown_choice", dataset={"builtin": "../../etc/passwd"}),
    wrong("SQL for a name", "/name", "string_pattern_mismatch", name="'; DROP TABLE job; --"),
    wrong("a NUL in a name", "/name", "string_pattern_mismatch", name="a\0b"),
    wrong("a line break at the end of a name", "/name", "string_pattern_mismatch", name="a\n"),
    wrong("a right-to-left override in the name of a job", "/name", "string_pattern_mismatch", name="a\u202eb"),
    wrong("a name of spaces", "/name", "string_pattern_mismatch", name="   "),
    wrong("markup for a name", "/name", "string_pattern_mismatch", name="<script>alert(1)</script>"),
    wrong("a NUL in the value of a label", "/labels/a", labels={"a": "b\0"}),
    wrong("a NUL in the name of a label", "/labels", labels={"a\0": "b"}),
    wrong("1,000 labels", "/labels", "too_long", labels={f"k{i}": "v" for i in range(1000)}),
    wrong("a label that is a list", "/labels/a", "string_type", labels={"a": ["b"]}),
    wrong("code in a shape expression", "/student", student={"name": "timm/resnet18'; import os"}),
    wrong("a regular expression that explodes", "/student", student={"name": "timm/" + "a" * 50_000 + "!"}),
    wrong("a webhook of a megabyte", "/webhook/url", webhook={"url": "https://example.com/" + "a" * 900_000}),
    *(
        wrong(f"a webhook to {url!r:.60}", "/webhook/url", webhook={"url": url})
        for url in CLOSED[::6]
    ),
    # The envelope
    Case(name="a spec as text", body=spec, path=JOBS, headers={"Content-Type": "text/plain"}, status=415, code="unsupported_media"),
    Case(name="a spec as a form", body=lambda: b"teacher=x", path=JOBS, headers={"Content-Type": "application/x-www-form-urlencoded"}, status=415, code="unsupported_media"),
    Case(name="a spec without a type", body=spec, path=JOBS, status=415, code="unsupported_media"),
    Case(name="a gzip bomb", body=lambda: gzip.compress(bytes(100_000_000)), path=JOBS, headers=JSON | {"Content-Encoding": "gzip"}, status=415, code="unsupported_media"),
    Case(name="gzip that is not said", body=lambda: gzip.compress(spec()), path=JOBS, headers=JSON, status=422, code="invalid", entry="not_utf8"),
    Case(name="a key without a name", body=lambda: b"{}", path="/v1/keys", headers=JSON, status=422, code="invalid", pointer="/name"),
    Case(name="a key for every scope there is", body=lambda: b'{"name": "x", "scope": "root"}', path="/v1/keys", headers=JSON, status=422, code="invalid", pointer="/scope"),
    Case(name="a key that lasts for ever", body=lambda: b'{"name": "x", "expires_in_days": 1e308}', path="/v1/keys", headers=JSON, status=422, code="invalid", pointer="/expires_in_days"),
]  # fmt: skip
