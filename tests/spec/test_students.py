"""What a spec may say about its student, and what that becomes: names, shrink, a budget."""

from typing import Any

import pytest

from stillhouse.spec import DataFacts, JobSpec, Limits, resolve
from stillhouse.spec.errors import InvalidSpec
from stillhouse.spec.students import (
    Budget,
    Cnn,
    Mlp,
    Mobilenet,
    Resnet,
    Shrink,
    Timm,
    WithinBudget,
    architecture_of,
    candidates_of,
)
from stillhouse.spec.students.ladder import LADDER, fitting
from tests.spec.bare import told
from tests.spec.test_resolve import DIGITS, TABLE, held, written, wrong

COLOUR = DIGITS.model_copy(update={"shape": (3, 32, 32)})
MODEL = {"model": "mdl_" + "0" * 26}


def settled(facts: DataFacts = DIGITS, limits: Limits | None = None, more: Any = None, **changes: Any) -> JobSpec:
    """A spec after the round trip it makes to a worker."""
    resolved = resolve(written(**changes), facts, limits or Limits(), **(more or {}))
    assert JobSpec.model_validate_json(resolved.model_dump_json()) == resolved
    return resolved


def refused(student: Any) -> dict[str, str]:
    return told(written().model_dump(mode="json") | {"student": student})


@pytest.mark.parametrize(
    ("teacher", "factors", "small"),
    [
        (Mlp(name="mlp", hidden=(1200, 1200), dropout=0.5), (0.5, 1.0), Mlp(name="mlp", hidden=(600, 600))),
        (Mlp(name="mlp", hidden=(100, 50, 25)), (0.5, 0.6), Mlp(name="mlp", hidden=(50, 25))),
        (Mlp(name="mlp", hidden=(3,)), (0.01, 0.01), Mlp(name="mlp", hidden=(1,))),
        (Mlp(name="mlp", hidden=()), (0.5, 0.5), Mlp(name="mlp", hidden=())),
        (Cnn(name="cnn", channels=(16, 32, 64), dropout=0.1), (0.25, 0.67), Cnn(name="cnn", channels=(4, 8))),
        (Resnet(name="resnet", depth=20), (0.5, 0.34), Resnet(name="resnet", depth=8, width=8)),
        (Resnet(name="resnet", depth=110), (1.0, 0.5), Resnet(name="resnet", depth=56)),
        (Resnet(name="resnet", depth=34, width=64), (0.5, 0.5), Resnet(name="resnet", depth=18, width=32)),
        (Mobilenet(name="mobilenet", depth=3), (0.3, 0.5), Mobilenet(name="mobilenet", width=0.3, depth=2)),
        (Mobilenet(name="mobilenet", width=0.2), (0.1, 1.0), Mobilenet(name="mobilenet", width=0.1)),
    ],
)
def test_a_shrunk_network_is_its_teacher_with_smaller_dials(
    teacher: Any, factors: tuple[float, float], small: Any
) -> None:
    assert Shrink(name="shrink", width=factors[0], depth=factors[1]).of(teacher) == small


def test_the_resolved_spec_echoes_what_the_trained_teacher_became() -> None:
    resolved = settled(student={"name": "shrink", "width": 0.5})
    assert resolved.student == Shrink(name="shrink", width=0.5, architecture=Mlp(name="mlp", hidden=(600, 600)))
    assert architecture_of(resolved.student) == Mlp(name="mlp", hidden=(600, 600))
    assert resolve(resolved, DIGITS, Limits()) == resolved


def test_a_stored_teacher_is_shrunk_by_the_architecture_the_service_knows() -> None:
    more = {"teachers": [held(DIGITS, Cnn(name="cnn"))]}
    resolved = settled(teacher=MODEL, student={"name": "shrink"}, more=more)
    assert architecture_of(resolved.student) == Cnn(name="cnn", channels=(8, 16, 32))
    black_box = wrong(written(teacher=MODEL, student={"name": "shrink"}), teachers=[None])
    assert black_box == {"/student": "cannot_shrink"}


def test_a_network_of_timm_cannot_be_shrunk() -> None:
    teacher = {"train": {"architecture": {"name": "timm", "architecture": "resnet18"}}}
    assert wrong(written(teacher=teacher, student={"name": "shrink"})) == {"/student": "cannot_shrink"}


def test_a_shrunk_architecture_given_by_hand_must_be_the_one_it_becomes() -> None:
    student = {"name": "shrink", "architecture": {"name": "mlp", "hidden": [7]}}
    assert wrong(written(student=student)) == {"/student/architecture": "contradiction"}


def test_a_shrunk_network_beyond_the_limits_is_refused() -> None:
    assert wrong(written(student={"name": "shrink", "width": 1.0}), limits=Limits(max_parameters=1_000_000)) == {
        "/student": "too_many_parameters",
        "/teacher/train/architecture": "too_many_parameters",
    }


@pytest.mark.parametrize("facts", [DIGITS, TABLE, COLOUR, DIGITS.model_copy(update={"shape": (1, 1, 1)})])
@pytest.mark.parametrize(
    "budget", [{"parameters": 20_000}, {"size_mb": 0.08}, {"macs": 60_000}, {"size_mb": 0.5, "macs": 10**6}]
)
def test_a_budget_takes_the_largest_step_that_is_within_it(facts: DataFacts, budget: dict[str, Any]) -> None:
    resolved = settled(facts, student={"budget": budget})
    (chosen,) = candidates_of(resolved.student)
    allowed = Budget.model_validate(budget)
    assert allowed.excess(chosen, facts) is None
    assert facts.task in chosen.tasks
    larger = [net for net in fitting(facts) if net.parameters(facts) > chosen.parameters(facts)]
    assert larger
    assert all(allowed.excess(net, facts) for net in larger)
    assert resolve(resolved, facts, Limits()) == resolved


def test_with_a_latency_all_that_may_have_to_be_measured_is_kept_largest_first() -> None:
    resolved = settled(student={"budget": {"latency_ms": 2.0, "parameters": 100_000}})
    kept = candidates_of(resolved.student)
    sizes = [net.parameters(DIGITS) for net in kept]
    assert len(kept) > 5
    assert sizes == sorted(sizes, reverse=True)
    assert set(kept) == {net for net in fitting(DIGITS) if net.parameters(DIGITS) <= 100_000}
    assert architecture_of(resolved.student) == kept[0]
    # A step size they all bear: that of the mlps.
    assert resolved.training.learning_rate == 0.003


def test_candidates_can_be_named() -> None:
    candidates = [{"name": "mlp", "hidden": [8]}, {"name": "cnn"}, {"name": "mlp", "hidden": [16]}]
    resolved = settled(student={"budget": {"parameters": 2_000}, "candidates": candidates})
    assert candidates_of(resolved.student) == (Mlp(name="mlp", hidden=(16,)),)
    misfit = {"budget": {"parameters": 2_000}, "candidates": [{"name": "mlp"}, {"name": "cnn", "channels": [1] * 6}]}
    assert wrong(written(student=misfit)) == {"/student/candidates/1": "architecture_misfit"}


def test_a_budget_nothing_fits_names_the_smallest_candidate_and_its_figure() -> None:
    with pytest.raises(InvalidSpec) as caught:
        resolve(written(student={"budget": {"parameters": 100}}), DIGITS, Limits())
    (error,) = caught.value.errors
    assert (error.pointer, error.code) == ("/student/budget", "nothing_fits")
    assert "the smallest, mlp hidden=[4], has 310 parameters and 100 are allowed" in error.detail


def test_a_budget_stays_below_the_limit_of_the_service() -> None:
    resolved = settled(student={"budget": {"size_mb": 1000.0}}, limits=Limits(max_parameters=1_600_000))
    (chosen,) = candidates_of(resolved.student)
    assert 1_000_000 < chosen.parameters(DIGITS) <= 1_600_000
    with pytest.raises(InvalidSpec, match="to mend") as caught:
        resolve(written(teacher=MODEL, student={"budget": {"size_mb": 1.0}}), DIGITS, Limits(max_parameters=10))
    assert "the limit is 10" in caught.value.errors[0].detail


def test_every_step_of_the_ladder_fits_its_tasks_and_no_two_are_the_same() -> None:
    assert len(set(LADDER)) == len(LADDER)
    assert set(fitting(COLOUR)) == set(LADDER)
    assert {net.name for net in fitting(TABLE)} == {"mlp"}


@pytest.mark.parametrize(
    ("student", "place", "says"),
    [
        ({"name": "mpl"}, "/student", "'shrink'"),
        ({"hidden": [3]}, "/student", "field 'name'"),
        ({"name": "mlp", "hiden": [3]}, "/student/hiden", "no such field"),
        ({"name": "shrink", "width": 1.5}, "/student/width", "less than or equal to 1"),
        ({"budget": {}}, "/student/budget", "at least one of"),
        ({"budget": {"size_mb": -1}}, "/student/budget/size_mb", "greater than 0"),
        ({"budget": {"size": 1}}, "/student/budget/size", "no such field"),
        ({"budget": {"size_mb": 1}, "candidates": []}, "/student/candidates", "at least 1 item"),
        ({"budget": {"size_mb": 1}, "candidates": [{"name": "mlp", "x": 1}]}, "/student/candidates/0/x", "no such"),
        ({"budget": {"size_mb": 1}, "name": "mlp"}, "/student/budget", "no such field"),
        ({"name": "timm"}, "/student/architecture", "required"),
        ({"name": "timm", "architecture": "resnt18"}, "/student/architecture", "resnet18"),
        ({"name": "timm/resnt18"}, "/student", "resnet18"),
        ("mlp", "/student", "an object"),
    ],
)
def test_what_is_no_student_is_told_at_its_place(student: Any, place: str, says: str) -> None:
    found = refused(student)
    assert list(found) == [place]
    assert says.lower() in found[place].lower()


def test_timm_with_a_slash_is_short_for_the_family_and_the_architecture() -> None:
    long = written(student={"name": "timm", "architecture": "resnet18", "input_size": 32})
    assert written(student={"name": "timm/resnet18", "input_size": 32}) == long
    teacher = {"train": {"architecture": {"name": "timm/resnet18"}}}
    assert written(teacher=teacher).teacher.train.architecture == Timm(name="timm", architecture="resnet18")  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("dials", "shape", "reason"),
    [
        ({"architecture": "resnet18"}, (3, 8, 8), None),
        ({"architecture": "resnet18"}, (1, 9, 13), None),
        ({"architecture": "resnet18"}, (30,), "use mlp"),
        ({"architecture": "convnext_atto"}, (3, 28, 28), "at least 32×32 pixels, it would get 28×28; input_size 32"),
        ({"architecture": "convnext_atto"}, (3, 8, 40), "input_size 40"),
        ({"architecture": "convnext_atto", "input_size": 32}, (3, 28, 28), None),
        ({"architecture": "convnext_atto", "input_size": 32}, (3, 40, 40), "input_size enlarges only"),
        ({"architecture": "vit_tiny_patch16_224"}, (3, 32, 32), None),
        ({"architecture": "vit_tiny_patch16_224"}, (3, 28, 28), "a square of a multiple of 16 pixels"),
        ({"architecture": "vit_tiny_patch16_224"}, (3, 28, 32), "input_size 32"),
        ({"architecture": "swin_tiny_patch4_window7_224"}, (3, 32, 32), "224×224 pixels, it would get 32×32"),
        ({"architecture": "swin_tiny_patch4_window7_224"}, (3, 300, 300), "choose a network for larger images"),
        ({"architecture": "swin_tiny_patch4_window7_224", "input_size": 224}, (3, 32, 32), None),
        ({"architecture": "mixer_s16_224", "pretrained": True, "input_size": 224}, (3, 32, 32), "no published weights"),
    ],
)
def test_a_network_of_timm_says_what_images_it_takes_and_what_mends_it(
    dials: dict[str, Any], shape: tuple[int, ...], reason: str | None
) -> None:
    found = Timm(name="timm", **dials).misfit(DIGITS.model_copy(update={"shape": shape}))
    if reason is None:
        assert found is None
    else:
        assert found is not None
        assert reason in found


def test_published_weights_get_a_smaller_step() -> None:
    rates = {
        (pretrained, optimizer): settled(
            COLOUR,
            student={"name": "timm", "architecture": "resnet18", "pretrained": pretrained},
            training={"optimizer": optimizer},
        ).training.learning_rate
        for pretrained in (False, True)
        for optimizer in ("adamw", "sgd")
    }
    assert rates == {(False, "adamw"): 0.001, (True, "adamw"): 0.0003, (False, "sgd"): 0.05, (True, "sgd"): 0.01}


def test_the_spec_needs_neither_torch_nor_timm() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from stillhouse.spec.students import Timm; Timm(name='timm', architecture='resnet18').facts;"
        "print(sorted({'torch', 'timm', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_whole_budget_is_a_value() -> None:
    assert WithinBudget(budget=Budget(size_mb=1.0)) == WithinBudget.model_validate({"budget": {"size_mb": 1.0}})
