"""Which layers are compared: chosen by stage and shape, or named, and refused before anything is spent."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distill import FolderShelf, RunIO, run
from distill.pairing import pair_layers, sentence
from distill.students import build
from stillhouse.spec import DataFacts
from stillhouse.spec.errors import InvalidSpec, JobFailure
from stillhouse.spec.events import LogLine, PhaseStarted
from stillhouse.spec.losses import LOSSES, LayerPair, Loss
from stillhouse.spec.states import Phase
from stillhouse.spec.students import STUDENTS
from tests.distill.conftest import resolved

SIDE = 16
FAMILIES = ["mlp", "cnn", "resnet", "mobilenet"]


def net(name: str, **dials: Any) -> nn.Module:
    facts = DataFacts(
        task="image-classification",
        shape=(1, SIDE, SIDE),
        dtype="uint8",
        classes=tuple("abc"),
        rows={"train": 1, "validation": 0, "test": 1},
    )
    return build(STUDENTS[name].model_validate({"name": name, **dials}), facts, [0.0], [1.0])


def loss(kind: str, *layers: tuple[str, str]) -> Loss:
    named = tuple(LayerPair(student=s, teacher=t) for s, t in layers)
    return LOSSES[kind](kind=kind, **({"layers": named} if layers else {}))  # type: ignore[return-value, call-arg]


def pairs(kind: str, student: nn.Module, teacher: nn.Module, *layers: tuple[str, str]) -> list[tuple[Any, ...]]:
    found = pair_layers([loss(kind, *layers)], student, teacher, torch.rand(2, 1, SIDE, SIDE))[kind]
    return [(p.student.path, p.student.shape, p.teacher.path, p.teacher.shape) for p in found]


def test_convolutional_stages_are_paired_from_the_end_one_per_resolution() -> None:
    student, teacher = net("cnn", channels=[4, 8], dropout=0.5), net("cnn", channels=[6, 10, 14])
    assert pairs("attention-transfer", student, teacher) == [
        ("network.2", (4, 16, 16), "network.6", (10, 8, 8)),
        ("network.6", (8, 8, 8), "network.10", (14, 4, 4)),
    ]


def test_of_a_resnet_the_last_block_of_each_stage_is_taken() -> None:
    found = pairs("nst", net("resnet", depth=14, width=4), net("resnet", depth=20, width=8))
    assert [(s, t) for s, _, t, _ in found] == [
        ("network.4", "network.5"),
        ("network.6", "network.8"),
        ("network.8", "network.11"),
    ]
    assert [shape for _, shape, _, _ in found] == [(4, 16, 16), (8, 8, 8), (16, 4, 4)]


def test_fitnet_takes_the_middle_stage_and_review_the_penultimate_layer_too() -> None:
    student, teacher = net("cnn", channels=[2, 3, 4]), net("cnn", channels=[6, 10, 14])
    assert [(s, t) for s, _, t, _ in pairs("fitnet", student, teacher)] == [("network.6", "network.6")]
    assert [s for s, *_ in pairs("review", student, teacher)] == ["network.2", "network.6", "network.10", "network.11"]


@pytest.mark.parametrize("kind", ["rkd", "similarity", "pkt", "cc", "crd"])
def test_relations_compare_what_the_last_layer_reads_without_its_dropout(kind: str) -> None:
    student, teacher = net("mlp", hidden=[9, 5], dropout=0.5), net("cnn", channels=[6, 10], dropout=0.5)
    assert pairs(kind, student, teacher) == [("network.5", (5,), "network.7", (10,))]


def test_hidden_layers_of_mlps_are_paired_at_equal_shares_of_their_depth() -> None:
    student, teacher = net("mlp", hidden=[5, 6]), net("mlp", hidden=[11, 12, 13, 14, 15])
    found = [(s[0], t[0]) for _, s, _, t in pairs("vid", student, teacher)]
    assert found == [(5, 13), (6, 15)]
    assert [(s[0], t[0]) for _, s, _, t in pairs("vid", teacher, student)] == [(13, 5), (15, 6)]


def test_a_cnn_and_an_mlp_meet_at_their_penultimate_layers() -> None:
    assert pairs("fitnet", net("mlp", hidden=[9, 5]), net("cnn", channels=[6, 10])) == [
        ("network.4", (5,), "network.7", (10,))
    ]


@pytest.mark.parametrize("student", FAMILIES)
@pytest.mark.parametrize("kind", ["fitnet", "vid", "review", "similarity"])
def test_every_family_learns_from_every_other(student: str, kind: str) -> None:
    for teacher in FAMILIES:
        assert pairs(kind, net(student), net(teacher))


def test_looking_changes_neither_mode_nor_weights_nor_random_numbers() -> None:
    student, teacher = net("resnet", depth=8), net("cnn", dropout=0.5).eval()
    before = {name: value.clone() for name, value in student.state_dict().items()}
    stream = torch.get_rng_state()
    pair_layers([loss("fitnet")], student, teacher, torch.zeros(2, 1, SIDE, SIDE))
    assert torch.equal(torch.get_rng_state(), stream)
    assert student.training
    assert not teacher.training
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_named_layers_are_taken_as_named() -> None:
    student, teacher = net("cnn", channels=[4, 8]), net("resnet", depth=8, width=4)
    found = pairs("fitnet", student, teacher, ("network.0", "network.3.conv1"), ("network.7", "network.6"))
    assert found == [
        ("network.0", (4, 16, 16), "network.3.conv1", (4, 16, 16)),
        ("network.7", (8,), "network.6", (16,)),
    ]


@pytest.mark.parametrize(
    ("kind", "student", "teacher", "layers", "code", "says"),
    [
        ("fitnet", "cnn", "cnn", ("network.22", "network.2"), "layer_unknown", "student has none"),
        ("fitnet", "cnn", "cnn", ("network.2", "netwrk.2"), "layer_unknown", "teacher has none"),
        ("fitnet", "cnn", "cnn", ("network.2", "network.11"), "layer_mismatch", "two maps"),
        ("nst", "cnn", "cnn", ("network.11", "network.11"), "layer_mismatch", "compares maps"),
        ("fitnet", "cnn", "cnn", ("normalize", "network.2"), "layer_mismatch", "nothing would learn"),
        ("attention-transfer", "mlp", "mlp", None, "layer_mismatch", "compares maps"),
        ("nst", "mlp", "cnn", None, "layer_mismatch", "compares maps"),
    ],
)
def test_layers_that_do_not_fit_are_refused_with_a_way_out(
    kind: str, student: str, teacher: str, layers: tuple[str, str] | None, code: str, says: str
) -> None:
    with pytest.raises(JobFailure, match=says) as failure:
        pairs(kind, net(student), net(teacher), *([layers] if layers else []))
    assert failure.value.code == code
    assert kind in failure.value.detail
    assert failure.value.hint


@pytest.mark.parametrize("kind", ["fitnet", "similarity", "review"])
def test_a_network_without_hidden_layers_has_nothing_to_compare(kind: str) -> None:
    for student, teacher, which in [([], [4], "student"), ([4], [], "teacher")]:
        with pytest.raises(JobFailure, match=f"the {which} has none") as failure:
            pairs(kind, net("mlp", hidden=student), net("mlp", hidden=teacher))
        assert failure.value.code == "layer_mismatch"


def test_the_log_says_what_is_compared() -> None:
    found = pair_layers([loss("rkd")], net("mlp", hidden=[5]), net("mlp", hidden=[7]), torch.rand(2, 1, SIDE, SIDE))
    expected = "The rkd loss compares network.2 [5] with the teacher's network.2 [7]."
    assert sentence("rkd", found["rkd"]) == expected


def test_a_misfit_ends_the_job_before_the_teacher_is_trained(digits_file: Path, tmp_path: Path) -> None:
    spec = resolved(
        digits_file,
        losses=[
            {"kind": "fitnet", "layers": [{"student": "network.2", "teacher": "network.nowhere"}]},
            {"kind": "ce"},
        ],
    )
    events: list[Any] = []
    with pytest.raises(JobFailure) as failure:
        run(spec, RunIO(digits_file, None, tmp_path, threads=1), events.append)
    assert failure.value.code == "layer_unknown"
    assert [e.phase for e in events if isinstance(e, PhaseStarted)] == [Phase.PREPARING]
    assert list(tmp_path.iterdir()) == []


def test_a_last_layer_that_nothing_would_train_is_refused_with_the_spec(digits_file: Path) -> None:
    for losses in ([{"kind": "rkd"}], [{"kind": "rkd"}, {"kind": "kd", "weight": 0}]):
        with pytest.raises(InvalidSpec) as caught:
            resolved(digits_file, losses=losses)
        assert [(e.pointer, e.code) for e in caught.value.errors] == [("/losses", "last_layer_untrained")]
    assert resolved(digits_file, losses=[{"kind": "rkd"}], finetune={}).losses
    assert resolved(digits_file, losses=[{"kind": "rkd"}, {"kind": "ce"}]).losses


def test_the_usual_weights_beside_ce_and_kd_are_the_published_ones_or_those_measured(digits_file: Path) -> None:
    usual = {"fitnet": 1, "attention-transfer": 10, "vid": 1, "nst": 5, "rkd": 1, "similarity": 3000}
    usual |= {"pkt": 30_000, "crd": 0.8}
    for kind, weight in usual.items():
        spec = resolved(digits_file, losses=[{"kind": kind}, {"kind": "kd"}, {"kind": "ce"}])
        assert [given.weight for given in spec.losses] == [weight, 0.9, 0.1]  # type: ignore[union-attr]


def test_the_log_names_pairs_and_the_live_teacher(digits_file: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "out").mkdir()
    lines: list[str] = []
    spec = resolved(digits_file, losses=[{"kind": "similarity"}, {"kind": "kd"}], training={"epochs": 1})
    io = RunIO(digits_file, None, tmp_path / "out", shelf=FolderShelf(tmp_path / "cache"), threads=1)
    finished = run(spec, io, lambda e: lines.append(e.message) if isinstance(e, LogLine) else None)
    said = "\n".join(lines)
    assert "The similarity loss compares network.2 [16] with the teacher's network.2 [64]." in said
    assert "Losses look at its layers, so the teacher works along" in said
    compared = finished.report.layer_pairs["similarity"][0]
    assert (compared.student, compared.student_shape) == ("network.2", [16])
    assert (compared.teacher, compared.teacher_shape) == ("network.2", [64])
    assert list((tmp_path / "cache").iterdir()) == []
