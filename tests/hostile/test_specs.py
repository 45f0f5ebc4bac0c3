"""Whatever is posted as a spec: refused field by field, or resolved to one that is valid, whole, and the same from JSON."""

import json
import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from stillhouse.spec.errors import InvalidSpec
from stillhouse.spec.facts import DataFacts
from stillhouse.spec.job import JobSpec
from stillhouse.spec.limits import Limits
from stillhouse.spec.losses import LOSSES
from stillhouse.spec.problems import field_errors
from stillhouse.spec.resolve import resolve
from stillhouse.spec.students import STUDENTS
from tests.house import SPEC

LARGE = os.environ.get("STILLHOUSE_FUZZ") == "large"
MANY = settings(
    max_examples=20_000 if LARGE else 150,
    deadline=None,
    derandomize=not LARGE,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
FACTS = DataFacts(
    task="image-classification",
    shape=(1, 8, 8),
    dtype="uint8",
    classes=tuple("0123456789"),
    rows={"train": 1257, "validation": 270, "test": 270},
)

_odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.integers(0, 20),
    st.floats(),
    st.sampled_from([0.5, 1.0, 4.0, 1e-300, 1e300, "auto", "", "kd", "mlp", "\0", "\ud800", "cosine", [], {}, [[]]]),
    st.text(max_size=5),
)
_fields = sorted({name for model in (*LOSSES.values(), *STUDENTS.values()) for name in model.model_fields} - {"kind"})
_loss = st.builds(
    lambda kind, more: {"kind": kind} | more,
    st.sampled_from([*LOSSES, "guesswork"]),
    st.dictionaries(st.sampled_from(_fields), _odd, max_size=2),
)
_student = st.builds(
    lambda name, more: {"name": name} | more,
    st.sampled_from([*STUDENTS, "x"]),
    st.dictionaries(st.sampled_from(_fields), st.one_of(_odd, st.lists(st.integers(-1, 64), max_size=4)), max_size=2),
)
_training = st.dictionaries(
    st.sampled_from([*type(JobSpec.model_validate(SPEC).training).model_fields, "x"]), _odd, max_size=3
)
_changes = st.fixed_dictionaries(
    {},
    optional={
        "student": st.one_of(_student, _odd),
        "losses": st.one_of(st.lists(_loss, max_size=3), _odd),
        "training": st.one_of(_training, _odd),
        "temperature": _odd,
        "finetune": st.one_of(st.dictionaries(st.sampled_from(["epochs", "learning_rate"]), _odd), _odd),
        "stages": st.one_of(st.lists(st.builds(lambda loss: {"losses": [loss]}, _loss), max_size=2), _odd),
        "teacher_outputs": st.dictionaries(st.sampled_from(["views", "top_k", "mode"]), _odd),
        "targets": st.dictionaries(st.sampled_from(["min_accuracy", "max_size_mb"]), _odd),
        "labels": st.dictionaries(st.text(max_size=3), _odd, max_size=2),
        "name": _odd,
    },
)


@MANY
@given(changes=_changes)
def test_a_spec_is_refused_by_field_or_resolved_for_good(changes: dict[str, Any]) -> None:
    given_spec = SPEC | changes
    try:
        spec = JobSpec.model_validate_json(json.dumps(given_spec))
    except ValidationError as error:
        wrong = field_errors(error, given_spec, JobSpec)
        assert wrong
        assert all(entry.code and entry.detail.endswith((".", "?")) for entry in wrong)
        return
    try:
        resolved = resolve(spec, FACTS, Limits())
    except InvalidSpec as error:
        assert error.errors
        assert all(entry.pointer.startswith("/") and entry.detail.endswith((".", "?")) for entry in error.errors)
        return
    text = resolved.model_dump_json()
    again = JobSpec.model_validate_json(text)
    assert again == resolved
    assert again.model_dump_json() == text
    assert resolve(again, FACTS, Limits()) == again
    assert again.plan()
