"""Every loss on layers against its definition, worked out here in float64 with loops, and its published promises."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from distill import losses as maths
from distill.losses import LOSSES, Batch, Context, Targets
from distill.losses.review import hierarchical
from distill.losses.rkd import ANGLE_ROWS
from distill.taps import Outputs, Pair, Point
from stillhouse.spec.losses import LOSSES as SPEC_LOSSES
from stillhouse.spec.losses import Layered

ROWS = 6
VECTORS = ((5,), (7,))  # what a layer of the student and one of the teacher give for a row
MAPS = ((3, 4, 6), (5, 8, 6))
RELATIONS = ["rkd", "similarity", "pkt", "cc", "crd"]
OF_MAPS = ["attention-transfer", "nst"]
LAYERED = [kind for kind, params in SPEC_LOSSES.items() if issubclass(params, Layered)]
PURE = [kind for kind in LAYERED if kind not in ("fitnet", "vid", "review", "crd")]  # nothing learned inside
Shapes = list[tuple[tuple[int, ...], tuple[int, ...]]]


def shapes_of(kind: str) -> Shapes:
    """Pairs of layers this loss can compare, as its definition below takes them."""
    if kind == "review":
        return [((3, 4, 4), (5, 8, 8)), ((4, 2, 2), (6, 2, 2)), ((4,), (7,))]
    return [VECTORS] if kind in RELATIONS else [MAPS]


def draw(shapes: Shapes, *, rows: int = ROWS, seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    stream = np.random.default_rng(seed)
    return [(stream.normal(size=(rows, *s)), stream.normal(size=(rows, *t))) for s, t in shapes]


def build(kind: str, shapes: Shapes, *, rows: int = ROWS, **dials: Any) -> nn.Module:
    """The module of a loss, float64, from a fixed stream."""
    params = SPEC_LOSSES[kind].model_validate({"kind": kind, "weight": 1.0, **dials})
    pairs = tuple(Pair(Point(f"s{i}", s), Point(f"t{i}", t)) for i, (s, t) in enumerate(shapes))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return LOSSES[kind].build(params, Context(pairs, torch.arange(rows) % 3)).double()


def batch(features: list[tuple[Any, Any]], positions: Tensor | None = None) -> Batch:
    tensors = [(torch.as_tensor(s), torch.as_tensor(t)) for s, t in features]
    rows = len(tensors[0][0])
    student = Outputs(torch.empty(rows, 0), {f"s{i}": s for i, (s, _) in enumerate(tensors)})
    teacher = Outputs(torch.empty(rows, 0), {f"t{i}": t for i, (_, t) in enumerate(tensors)})
    where = torch.arange(rows) if positions is None else positions
    return Batch(student, teacher, Targets(where % 3), where)


def value(module: nn.Module, features: list[tuple[Any, Any]], positions: Tensor | None = None) -> Tensor:
    """The loss, its memory left as it was."""
    result: Tensor = deepcopy(module)(batch(features, positions))
    return result


def weight(module: nn.Module, name: str) -> np.ndarray:
    return module.state_dict()[name].numpy()


# The definitions, in loops.


def pooled(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Adaptive average pooling of [B, C, H, W]."""
    out = np.empty((*x.shape[:2], height, width))
    for i in range(height):
        for j in range(width):
            top, bottom = i * x.shape[2] // height, -(-(i + 1) * x.shape[2] // height)
            left, right = j * x.shape[3] // width, -(-(j + 1) * x.shape[3] // width)
            out[:, :, i, j] = x[:, :, top:bottom, left:right].mean((2, 3))
    return out


def smaller(s: np.ndarray, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width = min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3])
    return pooled(s, height, width), pooled(t, height, width)


def conv(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Convolution [out, in, k, k] with padding (k - 1)/2."""
    side = kernel.shape[2] // 2
    padded = np.pad(x, ((0, 0), (0, 0), (side, side), (side, side)))
    out = np.zeros((len(x), len(kernel), *x.shape[2:]))
    for i in range(kernel.shape[2]):
        for j in range(kernel.shape[3]):
            window = padded[:, :, i : i + x.shape[2], j : j + x.shape[3]]
            out += np.einsum("oc,bchw->bohw", kernel[:, :, i, j], window)
    return out


def fitnet_by_definition(module: nn.Module, features: list[tuple[np.ndarray, np.ndarray]]) -> float:
    (s, t) = features[0]
    kernel, bias = (weight(module, f"comparisons.0.projector.{name}") for name in ("weight", "bias"))
    return float(((conv(s, kernel) + bias[:, None, None] - pooled(t, *s.shape[2:])) ** 2).mean())


def attention_by_definition(module: nn.Module, features: list[tuple[np.ndarray, np.ndarray]]) -> float:
    total = 0.0
    s, t = smaller(*features[0])
    for a, b in zip(s, t, strict=True):
        q_s, q_t = ((np.abs(x) ** 2).mean(0).flatten() for x in (a, b))
        total += ((q_s / np.linalg.norm(q_s) - q_t / np.linalg.norm(q_t)) ** 2).mean()
    return total / len(s)


def nst_by_definition(module: nn.Module, features: list[tuple[np.ndarray, np.ndarray]]) -> float:
    def mean_kernel(a: np.ndarray, b: np.ndarray) -> float:
        pairs = [(x.flatten(), y.flatten()) for x in a for y in b]
        return float(np.mean([(x @ y / np.linalg.norm(x) / np.linalg.norm(y)) ** 2 for x, y in pairs]))

    s, t = smaller(*features[0])
    return float(
        np.mean([mean_kernel(b, b) + mean_kernel(a, a) - 2 * mean_kernel(a, b) for a, b in zip(s, t, strict=True)])
    )


def vid_by_definition(module: nn.Module, features: list[tuple[np.ndarray, np.ndarray]]) -> float:
    s, t = smaller(*features[0])
    for layer in (0, 2, 4):
        s = conv(s if layer == 0 else np.maximum(s, 0), weight(module, f"comparisons.0.mean.{layer}.weight"))
    assert np.allclose(np.log1p(np.exp(weight(module, "comparisons.0.alpha"))), 5, atol=1e-4)
    return float((0.5 * ((s - t) ** 2 / 5.0 + np.log(5.0))).mean())


def review_by_definition(module: nn.Module, features: list[tuple[np.ndarray, np.ndarray]]) -> float:
    def normalised(x: np.ndarray) -> np.ndarray:
        mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-5)

    def nearest(x: np.ndarray, height: int, width: int) -> np.ndarray:
        rows = np.arange(height) * x.shape[2] // height
        return x[:, :, rows][:, :, :, np.arange(width) * x.shape[3] // width]

    total, deeper = 0.0, None
    for depth, (s, t) in enumerate(reversed(features)):
        s, t = (x if x.ndim == 4 else x[:, :, None, None] for x in (s, t))
        x = normalised(conv(s, weight(module, f"fusions.{depth}.entry.0.weight")))
        if deeper is not None:
            y = nearest(deeper, *x.shape[2:])
            name = f"fusions.{depth}.attention.0"
            z = conv(np.concatenate([x, y], 1), weight(module, f"{name}.weight"))
            share = 1 / (1 + np.exp(-z - weight(module, f"{name}.bias")[:, None, None]))
            x = x * share[:, :1] + y * share[:, 1:]
        deeper = nearest(x, *t.shape[2:])
        found = normalised(conv(deeper, weight(module, f"fusions.{depth}.exit.0.weight")))
        scales = [(1.0, found, t)]
        for share_of_scale, side in zip((0.5, 0.25, 0.125), [n for n in (4, 2, 1) if n < t.shape[2]], strict=False):
            scales.append((share_of_scale, pooled(found, side, side), pooled(t, side, side)))
        total += sum(w * ((a - b) ** 2).mean() for w, a, b in scales) / sum(w for w, _, _ in scales)
    return total


def huber(a: np.ndarray, b: np.ndarray) -> float:
    d = np.abs(a - b)
    return float(np.where(d < 1, 0.5 * d**2, d - 0.5).mean())


def rkd_by_definition(module: nn.Module, features: list[tuple[np.ndarray, np.ndarray]]) -> float:
    def distances(x: np.ndarray) -> np.ndarray:
        d = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
        return d / d[d > 0].mean()

    def angles(x: np.ndarray) -> np.ndarray:
        out = np.zeros((len(x),) * 3)
        for i, j, k in np.ndindex(out.shape):
            a, b = x[j] - x[i], x[k] - x[i]
            if i not in (j, k):
                out[i, j, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        return out

    s, t = features[0]
    return 25 * huber(distances(s), distances(t)) + 50 * huber(angles(s), angles(t))


def similarity_by_definition(module: nn.Module, features: list[tuple[np.ndarray, np.ndarray]]) -> float:
    g_s, g_t = (x @ x.T / np.linalg.norm(x @ x.T, axis=1, keepdims=True) for x in features[0])
    return float(((g_s - g_t) ** 2).sum()) / ROWS**2


def cosines(x: np.ndarray) -> np.ndarray:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    return unit @ unit.T


def pkt_by_definition(module: nn.Module, features: list[tuple[np.ndarray, np.ndarray]]) -> float:
    q, p = ((cosines(x) + 1) / 2 for x in features[0])
    q, p = q / q.sum(1, keepdims=True), p / p.sum(1, keepdims=True)
    return float((p * np.log((p + 1e-7) / (q + 1e-7))).sum()) / ROWS**2


def cc_by_definition(module: nn.Module, features: list[tuple[np.ndarray, np.ndarray]]) -> float:
    k_s, k_t = (np.exp(-0.8) * (1 + 0.8 * c + 0.32 * c**2) for c in map(cosines, features[0]))
    return float(((k_s - k_t) ** 2).mean())


def crd_by_definition(module: nn.Module, features: list[tuple[np.ndarray, np.ndarray]]) -> float:
    """All rows are drawn, so each has the rows of the other two classes as negatives."""

    def embedded(side: str, x: np.ndarray) -> np.ndarray:
        name = f"contrasts.0.{side}.linear"
        y = x @ weight(module, f"{name}.weight").T + weight(module, f"{name}.bias")
        return y / np.linalg.norm(y, axis=1, keepdims=True)

    def contrast(x: np.ndarray, memory: np.ndarray) -> float:
        e = np.exp(x @ memory.T / 0.07)
        classes = np.arange(ROWS) % 3
        other = classes[:, None] != classes
        z = np.concatenate([e.diagonal(), e[other]]).mean()
        total = 0.0
        for i in range(ROWS):
            known = np.log(e[i, i] / (e[i, i] + ROWS * z))
            apart = np.log(ROWS * z / (e[i][other[i]] + ROWS * z)).mean()
            total -= known + ROWS * apart
        return total / ROWS

    s, t = (embedded(side, x) for side, x in zip(("student", "teacher"), features[0], strict=True))
    memory_s, memory_t = (weight(module, f"contrasts.0.{side}.memory") for side in ("student", "teacher"))
    return contrast(s, memory_t) + contrast(t, memory_s)


DEFINITIONS: dict[str, Callable[..., float]] = {
    "fitnet": fitnet_by_definition,
    "attention-transfer": attention_by_definition,
    "review": review_by_definition,
    "vid": vid_by_definition,
    "nst": nst_by_definition,
    "rkd": rkd_by_definition,
    "similarity": similarity_by_definition,
    "pkt": pkt_by_definition,
    "cc": cc_by_definition,
    "crd": crd_by_definition,
}


def test_every_loss_on_layers_has_a_definition_here() -> None:
    assert set(DEFINITIONS) == set(LAYERED)


@pytest.mark.parametrize("kind", LAYERED)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_loss_is_its_definition(kind: str, seed: int) -> None:
    features, module = draw(shapes_of(kind), seed=seed), build(kind, shapes_of(kind))
    assert value(module, features).item() == pytest.approx(DEFINITIONS[kind](module, features), rel=1e-7)


@pytest.mark.parametrize("kind", ["fitnet", "vid"])
def test_vectors_are_compared_as_maps_of_one_pixel(kind: str) -> None:
    features, module = draw([VECTORS]), build(kind, [VECTORS])
    as_maps = [(s[:, :, None, None], t[:, :, None, None]) for s, t in features]
    assert value(module, features).item() == pytest.approx(DEFINITIONS[kind](module, as_maps), rel=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in LAYERED if kind != "review"])
def test_several_pairs_are_summed(kind: str) -> None:
    shapes = shapes_of(kind) * 2
    module = build(kind, shapes)
    first, second = draw(shapes_of(kind), seed=1) + draw(shapes_of(kind), seed=2)
    both = value(module, [first, second]).item()
    alone = []
    for i, features in enumerate((first, second)):
        one = build(kind, shapes_of(kind))
        state = {
            name.replace(f".{i}.", ".0.", 1): tensor
            for name, tensor in module.state_dict().items()
            if f".{i}." in name[:15] or name == "labels"
        }
        one.load_state_dict(state)
        alone.append(value(one, [features]).item())
    assert both == pytest.approx(sum(alone), rel=1e-9)


@pytest.mark.parametrize("kind", LAYERED)
def test_gradients_agree_with_finite_differences(kind: str) -> None:
    features, module = draw(shapes_of(kind)), build(kind, shapes_of(kind))
    module(batch(features))  # what is set by the first batch is set
    students = [torch.tensor(s, requires_grad=True) for s, _ in features]
    teachers = [t for _, t in features]
    assert torch.autograd.gradcheck(
        lambda *given: value(module, list(zip(given, teachers, strict=True))), tuple(students), atol=1e-4
    )


@pytest.mark.parametrize("kind", LAYERED)
def test_no_gradient_reaches_the_teacher_and_all_that_is_learned_gets_one(kind: str) -> None:
    features, module = draw(shapes_of(kind)), build(kind, shapes_of(kind))
    given = [(torch.tensor(s, requires_grad=True), torch.tensor(t, requires_grad=True)) for s, t in features]
    module(batch(given)).backward()
    assert all(t.grad is None for _, t in given)
    assert all(s.grad is not None and s.grad.abs().sum() > 0 for s, _ in given)
    assert all(p.grad is not None for p in module.parameters())
    assert (kind in PURE) == (not list(module.parameters()))


@pytest.mark.parametrize("kind", LAYERED)
def test_half_precision_is_widened_first(kind: str) -> None:
    module = build(kind, shapes_of(kind)).float()
    half = [tuple(torch.as_tensor(x).bfloat16() for x in pair) for pair in draw(shapes_of(kind))]
    wide = [(s.float(), t.float()) for s, t in half]
    found = value(module, half)
    assert found.dtype == torch.float32
    assert torch.equal(found, value(module, wide))


@pytest.mark.parametrize("kind", LAYERED)
def test_repeating_the_batch_changes_nothing_but_what_is_published_to_fall_with_its_size(kind: str) -> None:
    features, module = draw(shapes_of(kind)), build(kind, shapes_of(kind))
    module(batch(features))
    thrice = [tuple(np.concatenate([x] * 3) for x in pair) for pair in features]
    falls = {"similarity": 3, "pkt": 3}.get(kind, 1)
    found = value(module, thrice, torch.arange(ROWS).repeat(3)).item()
    tolerance = 1e-4 if kind == "pkt" else 1e-9  # ε is not scaled
    assert found * falls == pytest.approx(value(module, features).item(), rel=tolerance)


@pytest.mark.parametrize("kind", PURE)
def test_the_scale_of_either_side_does_not_matter(kind: str) -> None:
    features, module = draw(shapes_of(kind)), build(kind, shapes_of(kind))
    stretched = [(7.0 * s, 0.02 * t) for s, t in features]
    assert value(module, stretched).item() == pytest.approx(value(module, features).item(), rel=1e-9)


@pytest.mark.parametrize("kind", PURE)
def test_an_equal_student_loses_nothing(kind: str) -> None:
    shapes = [(t, t) for _, t in shapes_of(kind)]
    features, module = draw(shapes), build(kind, shapes)
    assert value(module, [(t, t) for _, t in features]).item() == pytest.approx(0, abs=1e-12)
    assert value(module, features).item() > 1e-4


@pytest.mark.parametrize("kind", LAYERED)
@pytest.mark.parametrize("fill", [0.0, 1.0])
def test_a_dead_layer_gives_finite_losses_and_gradients(kind: str, fill: float) -> None:
    module = build(kind, shapes_of(kind)).float()
    given = [
        (torch.full((ROWS, *s), fill, requires_grad=True), torch.full((ROWS, *t), fill)) for s, t in shapes_of(kind)
    ]
    found = value(module, given)
    found.backward()
    assert found.isfinite()
    assert all(s.grad is not None and s.grad.isfinite().all() for s, _ in given)


@pytest.mark.parametrize("kind", [kind for kind in LAYERED if kind != "review"])  # it holds batch norm
def test_a_batch_of_one_row_is_finite(kind: str) -> None:
    module = build(kind, shapes_of(kind))
    assert value(module, draw(shapes_of(kind), rows=1)).isfinite()


@pytest.mark.parametrize("kind", ["rkd", "similarity", "pkt", "cc"])
def test_relations_do_not_see_a_rotation(kind: str) -> None:
    features, module = draw([VECTORS]), build(kind, [VECTORS])
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(5, 5)))
    turned = [(s @ turn, t) for s, t in features]
    assert value(module, turned).item() == pytest.approx(value(module, features).item(), rel=1e-9)


def test_rkd_does_not_see_a_shift_not_even_a_large_one_in_fp32() -> None:
    (s, t) = (torch.as_tensor(x) for x in draw([VECTORS])[0])
    exact = maths.rkd(s, t, distance=25.0, angle=50.0).item()
    shifted = maths.rkd((s + 30).float(), t.float(), distance=25.0, angle=50.0).item()
    assert shifted == pytest.approx(exact, rel=1e-4)


def test_rkd_of_a_large_batch_forms_angles_within_groups() -> None:
    rows = ANGLE_ROWS + 5
    s, t = (torch.as_tensor(x) for x in draw([VECTORS], rows=rows)[0])
    groups = [slice(0, ANGLE_ROWS), slice(ANGLE_ROWS, rows)]
    angles = [maths.rkd(s[g], t[g], distance=0.0, angle=1.0) * len(s[g]) ** 3 for g in groups]
    expected = (torch.stack(angles).sum() / (ANGLE_ROWS**3 + 5**3)).item()
    assert maths.rkd(s, t, distance=0.0, angle=1.0).item() == pytest.approx(expected, rel=1e-9)


def test_cc_with_many_terms_is_the_gaussian_kernel() -> None:
    s, t = draw([VECTORS])[0]

    def kernel(x: np.ndarray) -> np.ndarray:
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        return np.array([[np.exp(-0.4 * ((a - b) ** 2).sum()) for b in unit] for a in unit])

    found = maths.cc(torch.as_tensor(s), torch.as_tensor(t), gamma=0.4, order=10).item()
    assert found == pytest.approx(((kernel(s) - kernel(t)) ** 2).mean(), rel=1e-4)


def test_review_compares_maps_at_the_scales_they_exceed() -> None:
    s, t = draw([((2, 8, 8), (2, 8, 8))])[0]
    parts = [((s - t) ** 2).mean()] + [((pooled(s, n, n) - pooled(t, n, n)) ** 2).mean() for n in (4, 2, 1)]
    expected = float(np.dot(parts, [1, 0.5, 0.25, 0.125]) / 1.875)
    assert hierarchical(torch.as_tensor(s), torch.as_tensor(t)).item() == pytest.approx(expected, rel=1e-12)
    one = hierarchical(torch.as_tensor(s[:, :, :1, :1]), torch.as_tensor(t[:, :, :1, :1])).item()
    assert one == pytest.approx(((s[:, :, :1, :1] - t[:, :, :1, :1]) ** 2).mean())


@pytest.mark.parametrize("kind", OF_MAPS)
def test_which_side_has_the_larger_maps_does_not_matter(kind: str) -> None:
    small, large = draw([MAPS])[0]
    there, back = build(kind, [MAPS]), build(kind, [MAPS[::-1]])
    assert value(there, [(small, large)]).item() == pytest.approx(value(back, [(large, small)]).item(), rel=1e-12)


def test_crd_remembers_rows_by_their_position_with_momentum() -> None:
    features, module = draw([VECTORS], rows=2), build("crd", [VECTORS], momentum=0.25)
    before = weight(module, "contrasts.0.student.memory").copy()
    module(batch(features, torch.tensor([4, 1])))
    after = weight(module, "contrasts.0.student.memory")
    name = "contrasts.0.student.linear"
    y = features[0][0] @ weight(module, f"{name}.weight").T + weight(module, f"{name}.bias")
    moved = 0.25 * before[[4, 1]] + 0.75 * y / np.linalg.norm(y, axis=1, keepdims=True)
    np.testing.assert_allclose(after[[4, 1]], moved / np.linalg.norm(moved, axis=1, keepdims=True), rtol=1e-9)
    untouched = [0, 2, 3, 5]
    np.testing.assert_array_equal(after[untouched], before[untouched])


def test_crd_keeps_the_scale_of_its_first_batch() -> None:
    module = build("crd", [VECTORS])
    assert np.isnan(weight(module, "contrasts.0.teacher.log_mean"))
    module(batch(draw([VECTORS])))
    first = weight(module, "contrasts.0.teacher.log_mean").copy()
    assert np.isfinite(first)
    module(batch(draw([VECTORS], seed=8)))
    assert weight(module, "contrasts.0.teacher.log_mean") == first


def test_crd_draws_other_negatives_each_step_as_a_function_of_the_step() -> None:
    features, module = draw([VECTORS]), build("crd", [VECTORS], rows=300, negatives=20)

    def at(step: int) -> float:
        given = batch(features)
        found: Tensor = deepcopy(module)(replace(given, step=step))
        return found.item()

    torch.manual_seed(0)
    assert at(1) == at(1)
    assert at(1) != at(2)


def test_crd_never_takes_more_negatives_than_there_are_rows() -> None:
    features = draw([VECTORS])
    many, all_rows = build("crd", [VECTORS], negatives=1_000_000), build("crd", [VECTORS], negatives=ROWS)
    assert value(many, features).item() == value(all_rows, features).item()


def test_crd_of_one_class_alone_still_knows_its_own_rows() -> None:
    params = SPEC_LOSSES["crd"].model_validate({"kind": "crd"})
    pair = Pair(Point("s0", (5,)), Point("t0", (7,)))
    module = LOSSES["crd"].build(params, Context((pair,), torch.zeros(ROWS, dtype=torch.int64))).double()
    assert value(module, draw([VECTORS])).isfinite()


def test_crd_takes_every_other_row_as_a_negative_where_labels_are_missing() -> None:
    params = SPEC_LOSSES["crd"].model_validate({"kind": "crd"})
    pair = Pair(Point("s0", (5,)), Point("t0", (7,)))

    def of(labels: Tensor) -> float:
        torch.manual_seed(1)
        return value(LOSSES["crd"].build(params, Context((pair,), labels)).double(), draw([VECTORS])).item()

    with torch.random.fork_rng(devices=[]):
        assert of(torch.full((ROWS,), -1)) == of(torch.arange(ROWS))
        assert of(torch.full((ROWS,), -1)) != of(torch.zeros(ROWS, dtype=torch.int64))


def test_attention_of_higher_power_looks_at_the_strongest_features() -> None:
    s, t = (torch.as_tensor(x) for x in draw([MAPS])[0])
    a = maths.attention_transfer(s, t, power=1.0).item()
    b = maths.attention_transfer(s, t, power=4.0).item()
    assert b > a > 0
