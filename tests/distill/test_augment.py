"""Random views: what each operation does to an image, that a view is reproducible, and that the teacher sees it too."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from distill import RunIO, run
from distill.augment import erased, erased_boxes, view
from distill.colour import jittered
from distill.data import Dataset, read_dataset
from distill.losses import Batch, Objective, Targets
from distill.mixing import cutmix, mixed, mixup, partners, pasted_box
from distill.rand_augment import OPERATIONS, applied
from distill.taps import Outputs
from distill.train import Teaching, fit
from stillhouse.spec.losses import Ce, Dkd
from stillhouse.spec.training import Augmentation, RandAugment
from tests.distill.conftest import resolved, store
from tests.distill.test_processes import JOB, _python
from tests.distill.test_train import SOFT, STAGE, Log, network

EVERYTHING = Augmentation(
    crop_padding=1,
    horizontal_flip=True,
    colour_jitter=0.4,
    rand_augment=RandAugment(ops=2, magnitude=12),
    random_erasing=0.5,
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """90 colour images of noise, 60 of them for training."""
    x = np.random.default_rng(0).integers(0, 256, (90, 3, 12, 10), dtype=np.uint8)
    path = tmp_path_factory.mktemp("photos") / "p"
    return read_dataset(store(path, x, np.arange(90) % 2, np.arange(90) // 60 * 2, ("a", "b")))


@pytest.fixture
def images() -> Tensor:
    return torch.randint(0, 256, (6, 3, 12, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def _views(
    data: Dataset, augmentation: Augmentation, epoch: int = 0, seed: int = 0, batch: Tensor | None = None
) -> Tensor:
    batch = torch.arange(len(data.rows["train"])) if batch is None else batch
    return view(data, augmentation, seed, "student", epoch)(batch, data.rows["train"][batch])


PARTS = [
    Augmentation(colour_jitter=0.4),
    Augmentation(rand_augment=RandAugment(ops=3, magnitude=20)),
    Augmentation(random_erasing=0.7),
    EVERYTHING,
]


@pytest.mark.parametrize("augmentation", PARTS, ids=["jitter", "rand_augment", "erasing", "everything"])
def test_a_view_depends_on_seed_epoch_and_row_but_not_on_the_batch(photos: Dataset, augmentation: Augmentation) -> None:
    whole = _views(photos, augmentation)
    assert whole.dtype == torch.float32
    some = torch.tensor([40, 3, 59, 3])
    assert torch.equal(_views(photos, augmentation, batch=some), whole[some])
    for other in (_views(photos, augmentation, epoch=1), _views(photos, augmentation, seed=1)):
        assert not torch.equal(other, whole)
    assert not torch.equal(whole, photos.inputs(photos.rows["train"]))
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 255


def test_one_more_operation_leaves_the_draws_of_the_others_alone(photos: Dataset) -> None:
    shifted = _views(photos, Augmentation(crop_padding=1, horizontal_flip=True))
    erasing = _views(photos, Augmentation(crop_padding=1, horizontal_flip=True, random_erasing=0.5))
    untouched = (erasing == shifted).flatten(1).all(1)
    assert 15 <= int(untouched.sum()) <= 45
    assert (erasing[~untouched] <= shifted[~untouched]).all()


def test_jitter_is_torchvisions_with_a_factor_for_each_image(images: Tensor) -> None:
    factors = torch.rand(6, 3, generator=torch.Generator().manual_seed(1)) + 0.5
    found = jittered(images.float(), factors, white=255)
    for image, (brightness, contrast, saturation), ours in zip(images, factors.tolist(), found, strict=True):
        theirs = F.adjust_brightness(image.float() / 255, brightness)
        theirs = F.adjust_saturation(F.adjust_contrast(theirs, contrast), saturation)
        torch.testing.assert_close(ours / 255, theirs, atol=1e-5, rtol=0)
    assert torch.equal(jittered(images.float(), torch.ones(6, 3), white=255), images.float())


def test_gray_images_have_no_saturation_to_change(images: Tensor) -> None:
    gray = images[:, :1].float()
    factors = torch.tensor([[0.8, 1.3, 0.1]]).expand(6, 3)
    assert torch.equal(
        jittered(gray, factors, white=255),
        jittered(gray, factors.clone().index_fill_(1, torch.tensor([2]), 9.0), white=255),
    )


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("channels", [1, 3])
def test_each_operation_of_rand_augment_is_torchvisions(images: Tensor, magnitude: int, channels: int) -> None:
    images = images[:, :channels]
    reference = v2.RandAugment()
    for number, (name, (magnitudes, signed)) in enumerate(reference._AUGMENTATION_SPACE.items()):
        strengths = magnitudes(31, 12, 10)
        strength = 0.0 if strengths is None else float(strengths[magnitude])
        for reverse in (False, True):
            theirs = reference._apply_image_or_video_transform(
                images,
                name,
                -strength if signed and reverse else strength,
                interpolation=reference.interpolation,
                fill={},
            )
            drawn = torch.full((6, 1), 2 * number + reverse, dtype=torch.uint8)
            ours = applied(images, drawn, magnitude / 30)
            # torchvision's strengths are float32: a factor may differ in its last bit, a pixel by one of 255 levels.
            assert (ours.int() - theirs.int()).abs().max() <= 1, name
    assert len(OPERATIONS) == len(reference._AUGMENTATION_SPACE)


def test_each_image_takes_its_own_operations_in_its_own_order(images: Tensor) -> None:
    invert_and_shift = torch.tensor([[22, 6], [6, 22], [0, 0], [22, 22], [7, 0], [0, 6]], dtype=torch.uint8)
    found = applied(images, invert_and_shift, 0.5)
    for image, drawn, ours in zip(images, invert_and_shift, found, strict=True):
        assert torch.equal(applied(image[None], drawn[None], 0.5)[0], ours)
    assert torch.equal(found[2], images[2])


def test_images_of_few_bits_keep_their_range(digits_file: Path) -> None:
    data = read_dataset(digits_file)
    assert data.white == 16
    seen = _views(data, Augmentation(rand_augment=RandAugment(ops=2, magnitude=9), colour_jitter=0.3))
    assert float(seen.max()) == pytest.approx(16)
    still = _views(data, Augmentation(rand_augment=RandAugment(ops=1, magnitude=0)))
    same = ((still - data.inputs(data.rows["train"])).abs() < 0.04).flatten(1).all(1)
    assert same.double().mean() > 0.6  # all but what stretches contrast whatever the magnitude


def test_a_dim_photo_is_still_one_of_eight_bits(photos: Dataset) -> None:
    assert replace(photos, x=photos.x.clamp(max=200)).white == 255
    assert replace(photos, x=photos.x.clamp(max=100)).white == 100


def test_erased_boxes_lie_in_the_image_and_have_the_stated_share() -> None:
    draws = torch.rand(4000, 4, generator=torch.Generator().manual_seed(0))
    boxes = erased_boxes(draws, 30, 40)
    top, bottom, left, right = boxes.T
    assert (boxes >= 0).all()
    assert int(bottom.max()) == 30
    assert int(right.max()) == 40
    assert (bottom > top).all()
    assert (right > left).all()
    share = ((bottom - top) * (right - left)).double() / 1200
    assert 0.01 < float(share.min()) < 0.05
    assert 0.28 < float(share.max()) < 0.36
    assert float(share.mean()) == pytest.approx(0.17, abs=0.01)


def test_an_erased_box_is_zero_and_the_rest_is_left(images: Tensor) -> None:
    boxes = torch.tensor([[1, 4, 2, 9], [0, 0, 0, 0], [0, 12, 0, 10], [11, 12, 9, 10], [0, 1, 0, 10], [3, 5, 0, 1]])
    found = erased(images, boxes)
    for image, (top, bottom, left, right), ours in zip(images, boxes.tolist(), found, strict=True):
        expected = image.clone()
        expected[:, top:bottom, left:right] = 0
        assert torch.equal(ours, expected)


def test_mixup_and_cutmix_are_torchvisions(images: Tensor) -> None:
    x, labels = images.float(), torch.tensor([0, 1, 2, 0, 1, 2])
    partner = partners(Targets(labels))
    given = {"labels": labels, "batch_size": 6}
    torch.testing.assert_close(mixup(x, partner, 0.3), v2.MixUp(num_classes=3).transform(x, {**given, "lam": 0.3}))
    top, bottom, left, right = 2, 7, 1, 10
    theirs = v2.CutMix(num_classes=3).transform(x, {**given, "box": (left, top, right, bottom)})
    ours, share = cutmix(x, partner, (top, bottom, left, right))
    assert torch.equal(ours, theirs)
    assert share == pytest.approx(1 - 5 * 9 / 120)


def test_a_pasted_box_has_the_share_it_should_unless_it_is_cut_off() -> None:
    random, shares = Random(0), []
    for _ in range(500):
        top, bottom, left, right = pasted_box(0.75, 100, 100, random)
        assert 0 <= top <= bottom <= 100
        assert 0 <= left <= right <= 100
        shares.append((bottom - top) * (right - left) / 10_000)
    assert max(shares) == pytest.approx(0.25)
    top, bottom, left, right = pasted_box(1.0, 9, 9, random)
    assert (bottom - top) * (right - left) == 0


def test_mixed_labels_are_the_cross_entropy_of_the_mixed_target() -> None:
    student, teacher = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 2, 0])
    targets = Targets(labels, mixed_in=labels.roll(1), share=0.7)
    losses = (Ce(kind="ce", weight=1.0), Dkd(kind="dkd", temperature=2.0, weight=1.0))

    def parts(given: Targets) -> dict[str, Tensor]:
        return Objective(losses)(Batch(Outputs(student), Outputs(teacher), given, torch.arange(5)))[1]

    soft = 0.7 * torch.eye(3)[labels] + 0.3 * torch.eye(3)[labels.roll(1)]
    found = parts(targets)
    expected = -(soft * student.log_softmax(1)).sum(1).mean()
    assert found["ce"].item() == pytest.approx(expected.item(), rel=1e-6)
    own, other = parts(Targets(labels)), parts(Targets(labels.roll(1)))
    assert found["dkd"].item() == pytest.approx((0.7 * own["dkd"] + 0.3 * other["dkd"]).item(), rel=1e-12)


def test_a_row_is_mixed_with_one_that_has_a_label_exactly_if_it_has_one() -> None:
    labels = torch.tensor([3, -1, 1, -1, -1, 0, -1])
    partner = partners(Targets(labels, partial=True))
    assert sorted(partner.tolist()) == list(range(7))
    assert torch.equal(labels[partner] >= 0, labels >= 0)
    assert (partner != torch.arange(7)).all()


def test_the_mixture_is_a_function_of_seed_and_step_and_both_kinds_get_their_turn(images: Tensor) -> None:
    x, targets, both = images.float(), Targets(torch.arange(6)), Augmentation(mixup=0.4, cutmix=1.0)
    kinds = Counter[bool]()
    for step in range(60):
        found, known = mixed(x, targets, both, 0, "student", step)
        again, known_again = mixed(x, targets, both, 0, "student", step)
        assert torch.equal(found, again)
        assert known.share == known_again.share
        assert 0 <= known.share <= 1
        pasted = bool(((found == x) | (found == x.roll(1, 0))).all())
        kinds[pasted] += 1
    assert 15 < kinds[True] < 45
    shares = {mixed(x, targets, both, seed, "student", 0)[1].share for seed in range(8)}
    assert len(shares) == 8


def test_teacher_and_student_see_the_very_same_mixed_view(digits_file: Path) -> None:
    data, given = read_dataset(digits_file), []
    net = network(data)
    net.register_forward_pre_hook(lambda module, x: given.append(x[0].clone()) if module.training else None)

    def teaching(batch: Tensor, x: Tensor, epoch: int) -> Outputs:
        assert torch.equal(x, given[-1])
        assert not torch.equal(x, data.inputs(data.rows["train"][batch]))
        return Outputs(torch.zeros(len(x), 10))

    augmentation = EVERYTHING.model_copy(update={"mixup": 0.2, "cutmix": 1.0})
    fit(
        net,
        [replace(STAGE, losses=SOFT, epochs=2, augmentation=augmentation)],
        data,
        Teaching(teaching),
        Log().reporter,
    )
    assert len(given) == 40
    assert not torch.equal(given[0], given[20])


@pytest.mark.parametrize(
    "augmentation",
    [
        {"rand_augment": {"ops": 1, "magnitude": 5}},
        {"colour_jitter": 0.3, "random_erasing": 0.3},
        {"mixup": 0.4},
        {"cutmix": 1.0},
    ],
    ids=lambda a: next(iter(a)),
)
def test_students_learn_from_augmented_digits_with_the_teacher_live(
    digits_file: Path, tmp_path: Path, augmentation: dict[str, Any]
) -> None:
    spec = resolved(
        digits_file,
        student={"name": "mlp", "hidden": [32]},
        teacher={"train": {"architecture": {"name": "mlp", "hidden": [128]}, "epochs": 10}},
        training={"epochs": 12, "augmentation": augmentation},
        teacher_outputs={"views": "live"},
    )
    said: list[str] = []
    report = run(
        spec,
        RunIO(digits_file, None, tmp_path, threads=1),
        lambda e: said.append(e.message) if e.type == "log" else None,
    ).report
    assert report.models[1].accuracy > 0.85
    assert any("the very views the student sees" in line for line in said)


def test_tables_can_be_mixed(tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    y = np.arange(600) % 2
    x = (stream.normal(size=(600, 3)) + 2 * y[:, None]).astype(np.float32)
    path = store(tmp_path / "t", x, y, np.arange(600) // 2 % 3, ("a", "b"))
    (tmp_path / "out").mkdir()
    spec = resolved(path, training={"epochs": 5, "augmentation": {"mixup": 0.3}})
    report = run(spec, RunIO(path, None, tmp_path / "out", threads=1), lambda event: None).report
    assert report.models[1].accuracy > 0.85


def test_two_processes_see_the_same_views_and_train_the_same_bits(digits_file: Path, tmp_path: Path) -> None:
    augmentation = EVERYTHING.model_dump() | {"mixup": 0.2, "cutmix": 1.0}
    spec = resolved(
        digits_file,
        teacher={"train": {"architecture": {"name": "mlp", "hidden": [32]}, "epochs": 1, "augmentation": augmentation}},
        student={"name": "cnn", "channels": [4, 8]},
        training={"epochs": 2, "augmentation": augmentation},
    ).model_dump_json()
    script = JOB + "print(json.dumps(job()))"
    first, second = (_python(script, spec, str(digits_file), str(tmp_path / name), "1") for name in ("a", "b"))
    assert first == second


def test_what_a_seed_shows_is_pinned_so_that_a_resumed_job_goes_on_with_it(photos: Dataset) -> None:
    seen = _views(photos, Augmentation(rand_augment=RandAugment(), random_erasing=0.5), epoch=3)
    # The mean of noise is the same on every machine; a digest of float arithmetic may not be.
    per_image = seen.round().mean((1, 2, 3))[:4].tolist()
    assert per_image == pytest.approx([121.9, 122.7, 80.8, 86.3], abs=0.5)
