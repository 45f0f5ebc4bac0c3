"""A shrunk student starts from its teacher: which units are kept, that they stay joined, and that it helps."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distill import RunIO, load, run
from distill.data import read_dataset
from distill.evaluate import score
from distill.students import build
from distill.students.shrink import inherit, recalibrate
from stillhouse.spec import DataFacts
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.events import LogLine
from stillhouse.spec.students import Cnn, Mlp, Mobilenet, Resnet, Shrink, Timm, architecture_of
from tests.distill.conftest import resolved

IMAGES = DataFacts(
    task="image-classification", shape=(3, 8, 8), dtype="uint8", classes=("a", "b", "c"), rows={"train": 1, "test": 1}
)
TEACHERS = [
    Mlp(name="mlp", hidden=(24, 16, 12), dropout=0.3, input_dropout=0.1),
    Cnn(name="cnn", channels=(6, 9, 12), dropout=0.2),
    Resnet(name="resnet", depth=20, width=5),
    Resnet(name="resnet", depth=34, width=4),
    Mobilenet(name="mobilenet", width=0.5, depth=3),
]


def network(architecture: Any) -> nn.Module:
    return build(architecture, IMAGES, [100.0] * 3, [50.0] * 3).eval()


def lived_in(architecture: Any) -> nn.Module:
    """A network whose batch norms are no longer what they start as."""
    torch.manual_seed(3)
    net = network(architecture)
    for name, value in net.state_dict().items():
        if "running" in name or value.ndim == 1:
            value.copy_(torch.rand(value.shape) + 0.5)
    return net


def started(large: Any, **factors: float) -> tuple[nn.Module, nn.Module, Any, tuple[int, int]]:
    small = Shrink(name="shrink", **factors).of(large)
    teacher, student = lived_in(large), network(small)
    return teacher, student, small, inherit(student, teacher, small, large)


@pytest.mark.parametrize("large", TEACHERS, ids=lambda net: f"{net.name}-{getattr(net, 'depth', '')}")
def test_at_full_width_and_depth_the_student_is_the_teacher(large: Any) -> None:
    teacher, student, _, (taken, total) = started(large, width=1.0, depth=1.0)
    x = torch.rand(4, 3, 8, 8) * 255
    assert torch.equal(student(x), teacher(x))
    assert taken == total


@pytest.mark.parametrize("large", TEACHERS, ids=lambda net: f"{net.name}-{getattr(net, 'depth', '')}")
@pytest.mark.parametrize("factors", [(0.6, 1.0), (1.0, 0.5), (0.5, 0.4), (0.01, 0.01)])
def test_every_tensor_of_a_kept_layer_is_a_slice_of_the_teachers(large: Any, factors: tuple[float, float]) -> None:
    width, depth = factors
    teacher, student, _, (taken, total) = started(large, width=width, depth=depth)
    theirs = torch.cat([value.flatten() for value in teacher.state_dict().values()])
    mine = torch.cat([p.detach().flatten() for p in student.parameters()])
    assert int(torch.isin(mine, theirs).sum()) == taken
    fresh_head = isinstance(large, Mlp | Cnn) and depth < 1
    assert (taken < total) == fresh_head
    assert torch.isfinite(student(torch.rand(2, 3, 8, 8))).all()


def silence(net: nn.Module, layers: dict[str, list[int]]) -> None:
    """Make channels of some batch norms (or rows of linear layers) give nothing."""
    for layer, channels in layers.items():
        for name in ("weight", "bias"):
            with torch.no_grad():
                net.get_submodule(layer).get_parameter(name)[channels] = 0


def test_units_nobody_hears_are_the_ones_that_go() -> None:
    large = Mlp(name="mlp", hidden=(6, 4))
    teacher = lived_in(large)
    silence(teacher, {"network.1": [0, 3, 5], "network.3": [1, 2]})
    small = Mlp(name="mlp", hidden=(3, 2))
    student = network(small)
    inherit(student, teacher, small, large)
    x = torch.rand(5, 3, 8, 8) * 255
    assert torch.allclose(student(x), teacher(x), atol=1e-6)


def test_silent_channels_of_a_cnn_go_and_the_answers_stay() -> None:
    large = Cnn(name="cnn", channels=(4, 6))
    teacher = lived_in(large)
    silence(teacher, {"network.1": [1, 2], "network.5": [0, 4, 5]})
    small = Cnn(name="cnn", channels=(2, 3))
    student = network(small)
    inherit(student, teacher, small, large)
    x = torch.rand(5, 3, 8, 8) * 255
    assert torch.allclose(student(x), teacher(x), atol=1e-5)


@pytest.mark.parametrize("width", [4, 5])
def test_silent_channels_of_a_resnet_go_and_its_padded_shortcuts_stay_joined(width: int) -> None:
    # Stages of w, 2w, 4w channels; the shortcut pads w // 2 channels on the left. What is silent: one channel of the
    # stem, the same channel moved along the shortcuts, and one of the new ones on the right in each later stage.
    large, small = Resnet(name="resnet", depth=8, width=width), Resnet(name="resnet", depth=8, width=width - 1)
    padding = [width // 2, width]  # channels on the left of stage 2 and of stage 3
    gone = [[1], [], []]
    for stage in (1, 2):
        moved = [channel + padding[stage - 1] for channel in gone[stage - 1]]
        wide, kept = width * 2**stage, (width - 1) * 2**stage
        left = [0] * (width * 2 ** (stage - 1) // 2 - (width - 1) * 2 ** (stage - 1) // 2)
        right = list(range(wide - (wide - kept - len(moved) - len(left)), wide))
        gone[stage] = sorted([*left, *moved, *right])
        assert len(set(gone[stage])) == wide - kept
    teacher = lived_in(large)
    silence(teacher, {"network.1": gone[0], **{f"network.{3 + s}.norm2": gone[s] for s in range(3)}})
    silence(teacher, {f"network.{3 + s}.norm1": list(range(2**s)) for s in range(3)})
    student = network(small)
    inherit(student, teacher, small, large)
    x = torch.rand(5, 3, 8, 8) * 255
    assert torch.allclose(student(x), teacher(x), rtol=1e-4, atol=1e-4)


def test_silent_channels_of_a_resnet_with_projections_go_and_the_answers_stay() -> None:
    large, small = Resnet(name="resnet", depth=18, width=4), Resnet(name="resnet", depth=18, width=3)
    teacher = lived_in(large)
    for name, layer in teacher.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            channels = layer.num_features
            silence(teacher, {name: list(range(0, channels, 4))})  # of four channels one
    student = network(small)
    inherit(student, teacher, small, large)
    x = torch.rand(5, 3, 8, 8) * 255
    assert torch.allclose(student(x), teacher(x), rtol=1e-4, atol=1e-4)


def test_silent_channels_of_a_mobilenet_go_and_its_shortcuts_stay_joined() -> None:
    large, small = Mobilenet(name="mobilenet", width=1.0, depth=2), Mobilenet(name="mobilenet", width=0.75, depth=2)
    teacher = lived_in(large)
    for name, layer in teacher.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            own = sum(p.numel() for p in layer.parameters()) // 2
            kept = network(small).get_submodule(name).get_parameter("weight").numel()
            silence(teacher, {name: list(range(own - kept))})
    student = network(small)
    inherit(student, teacher, small, large)
    x = torch.rand(5, 3, 8, 8) * 255
    assert torch.allclose(student(x), teacher(x), rtol=1e-4, atol=1e-4)


def test_blocks_are_kept_evenly_and_the_first_always() -> None:
    large = Resnet(name="resnet", depth=32, width=2)
    teacher, student, small, _ = started(large, width=1.0, depth=0.6)
    assert small == Resnet(name="resnet", depth=20, width=2)
    for stage in range(3):
        for mine, theirs in enumerate((0, 2, 4)):
            ours = student.get_parameter(f"network.{3 + stage * 3 + mine}.conv1.weight")
            assert torch.equal(ours, teacher.get_parameter(f"network.{3 + stage * 5 + theirs}.conv1.weight"))


def test_recalibrated_statistics_are_those_of_the_rows_and_nothing_else_changes() -> None:
    net = lived_in(Cnn(name="cnn", channels=(4,)))
    before = {name: value.clone() for name, value in net.named_parameters()}
    rows = torch.rand(300, 3, 8, 8) * 255
    recalibrate(net, rows / 2)
    recalibrate(net, rows)
    first = net.get_submodule("network.1")
    assert isinstance(first, nn.BatchNorm2d)
    made = net.get_submodule("network.0")(net.get_submodule("normalize")(rows))
    assert first.running_mean is not None
    assert torch.allclose(first.running_mean, made.mean(dim=(0, 2, 3)), atol=1e-4)
    assert first.momentum == 0.1
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())


def test_another_family_cannot_be_the_start() -> None:
    small, large = Mlp(name="mlp"), Cnn(name="cnn")
    with pytest.raises(ValueError, match="a mlp cannot start from the layers of a cnn"):
        inherit(network(small), network(large), small, large)


@pytest.fixture(scope="module")
def teacher_folder(digits_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good convolutional model of the digits."""
    folder = tmp_path_factory.mktemp("teacher")
    spec = resolved(
        digits_file,
        teacher={"train": {"architecture": {"name": "mlp", "hidden": [4]}, "epochs": 1}},
        student={"name": "resnet", "depth": 14, "width": 8},
        losses=[{"kind": "ce"}],
        training={"epochs": 6},
    )
    run(spec, RunIO(digits_file, None, folder, threads=1), lambda event: None)
    return folder


def test_before_any_training_a_mildly_shrunk_student_is_far_above_chance(
    digits_file: Path, teacher_folder: Path
) -> None:
    data, teacher = read_dataset(digits_file), load(teacher_folder)
    large = Resnet(name="resnet", depth=14, width=8)
    for factors in ({"width": 0.875, "depth": 1.0}, {"width": 1.0, "depth": 0.5}):
        small = Shrink(name="shrink", **factors).of(large)
        torch.manual_seed(0)
        student = build(small, data.facts, [4.9], [6.0])
        student.get_submodule("normalize").load_state_dict(teacher.get_submodule("normalize").state_dict())
        inherit(student, teacher, small, large)
        # Of 270 rows a tenth would be right by chance, and 0.18 by a chance of one in 10,000.
        assert score(student.eval(), data, "test").accuracy > 0.2, factors
        recalibrate(student, data.inputs(data.rows["train"][:512]))
        assert score(student.eval(), data, "test").accuracy > 0.4, factors
    assert score(teacher, data, "test").accuracy > 0.9


def test_a_job_shrinks_the_teacher_it_trains_and_its_baseline_starts_at_random(
    digits_file: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    spec = resolved(
        digits_file,
        teacher={"train": {"architecture": {"name": "mlp", "hidden": [64, 32], "dropout": 0.2}, "epochs": 8}},
        student={"name": "shrink", "width": 0.5},
        training={"epochs": 1, "learning_rate": 1e-6},
        evaluation={"baseline": True},
    )
    assert architecture_of(spec.student) == Mlp(name="mlp", hidden=(32, 16))
    finished = run(
        spec,
        RunIO(digits_file, None, tmp_path, threads=1),
        lambda event: lines.append(event.message) if isinstance(event, LogLine) else None,
    )
    assert "The student starts from the teacher: 2,778 of 2,778 parameters are taken over." in lines
    assert finished.student.architecture == Mlp(name="mlp", hidden=(32, 16))
    _, student, baseline = finished.report.models
    # At a step size of nearly nothing only the start can tell them apart.
    assert student.accuracy > 0.5
    assert baseline.accuracy < 0.3


def test_a_teacher_of_another_family_than_the_spec_says_ends_the_job(
    digits_file: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    spec = resolved(digits_file, student={"name": "shrink"})
    loaded = spec.model_copy(update={"teacher": spec.teacher.model_copy(update={"train": None, "model": "mdl_x"})})
    with pytest.raises(JobFailure) as caught:
        run(loaded, RunIO(digits_file, teacher_folder, tmp_path, threads=1), lambda event: None)
    assert caught.value.code == "teacher_unusable"
    assert "a mlp cannot start from the layers of a resnet" in caught.value.detail


def test_a_network_of_timm_has_no_dials_to_turn() -> None:
    with pytest.raises(ValueError, match="no width and depth to turn"):
        Shrink(name="shrink").of(Timm(name="timm", architecture="resnet18"))
