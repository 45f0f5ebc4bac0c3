"""Raw rows become what a network was trained on: against hand-worked numbers and torchvision."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms import v2 as transforms

from distill.teachers.prepare import PrepareImages, PrepareTable, resized_to
from stillhouse.spec.teachers import Preprocessing
from tests.distill.teachers.making import images


def preparing(**fields: object) -> Preprocessing:
    return Preprocessing.model_validate(fields)


def prepared(x: torch.Tensor, wide: int | None = 3, white: float = 255.0, **fields: object) -> torch.Tensor:
    return PrepareImages(preparing(**fields), wide, white)(x)  # type: ignore[no-any-return]


def test_nothing_stated_changes_nothing() -> None:
    x = images(2, 3, 5, 7)
    assert torch.equal(prepared(x), x)


def test_scale_mean_and_std_by_hand() -> None:
    x = torch.tensor([51.0, 102, 255]).view(1, 3, 1, 1)
    out = prepared(x, scale=255, mean=[0.1, 0.2, 0.5], std=[0.1, 0.5, 0.25])
    assert out.flatten().tolist() == pytest.approx([1.0, 0.4, 2.0])


def test_the_datasets_own_range_is_a_scale() -> None:
    assert prepared(torch.full((1, 1, 2, 2), 8.0), 1, 16.0, scale="dataset").flatten().tolist() == [0.5] * 4


def test_gray_for_colour_and_colour_for_gray() -> None:
    gray = images(2, 1, 4, 4)
    assert torch.equal(prepared(gray, gray="repeat"), gray.repeat(1, 3, 1, 1))
    colour = torch.tensor([10.0, 20, 30]).view(1, 3, 1, 1)
    assert prepared(colour, 1, colour="luminance").item() == pytest.approx(0.299 * 10 + 0.587 * 20 + 0.114 * 30)


def test_mean_and_std_are_those_of_the_order_the_network_takes() -> None:
    x = torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1)
    assert prepared(x, channels="bgr", mean=[1, 0, 0]).flatten().tolist() == [2.0, 2.0, 1.0]


def test_layout_comes_last() -> None:
    x = images(2, 3, 4, 5)
    out = prepared(x, layout="nhwc", mean=[1, 2, 3])
    assert torch.equal(out, (x - torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1)).permute(0, 2, 3, 1))
    assert out.is_contiguous()


MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    "nearest": InterpolationMode.NEAREST_EXACT,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("given", [(50, 40), (40, 50), (20, 20), (28, 28), (224, 64)])
def test_resizing_and_cropping_are_torchvisions(mode: str, given: tuple[int, int]) -> None:
    x = images(2, 3, *given)
    out = prepared(x, size=[28, 28], crop=0.875, fit="shorter-side", interpolation=mode)
    theirs = transforms.Compose([transforms.Resize(32, MODES[mode], antialias=True), transforms.CenterCrop(28)])(x)
    if mode == "bicubic":
        theirs = theirs.clamp(0, 255)
    assert torch.allclose(out, theirs, atol=1e-4)


def test_stretching_makes_both_sides_what_is_stated() -> None:
    x = images(1, 3, 50, 30)
    out = prepared(x, size=[20, 24], fit="stretch")
    theirs = transforms.Resize((20, 24), antialias=True)(x)
    assert torch.allclose(out, theirs, atol=1e-4)


@pytest.mark.parametrize(("size", "resized"), [(224, 256), (224, 232), (299, 342), (288, 320), (384, 384), (518, 588)])
def test_a_crop_leads_back_to_the_size_it_was_taken_from(size: int, resized: int) -> None:
    assert resized_to(preparing(size=[size, size], crop=size / resized), 500, 500) == (resized, resized)


def test_bicubic_does_not_leave_the_range_of_bytes() -> None:
    x = torch.zeros(1, 1, 8, 8)
    x[..., ::2] = 255
    out = prepared(x, 1, size=[23, 23], interpolation="bicubic")
    assert (out.min().item(), out.max().item()) == (0.0, 255.0)


def test_tables_have_a_mean_and_a_spread_for_each_input() -> None:
    out = PrepareTable(preparing(scale=2, mean=[1, 2], std=[1, 4]), 1.0)(torch.tensor([[4.0, 20]]))
    assert out.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("fields", "said"),
    [({"mean": [1, 2], "std": [1, 2, 3]}, "3 numbers and mean has 2"), ({"crop": 0.9}, "size")],
)
def test_what_contradicts_itself_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        preparing(**fields)
