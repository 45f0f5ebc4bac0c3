"""From the raw values of a dataset to what an uploaded network was trained on."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from stillhouse.spec.base import Contract, LaxTuple

Interpolation = Literal["bilinear", "bicubic", "nearest"]
Fit = Literal["stretch", "shorter-side"]
Scale = Annotated[float, Field(gt=0, le=1e9)] | Literal["dataset"]
Centre = Annotated[tuple[Annotated[float, Field(ge=-1e9, le=1e9)], ...], LaxTuple, Field(max_length=100_000)]
Spread = Annotated[tuple[Annotated[float, Field(gt=0, le=1e9)], ...], LaxTuple, Field(max_length=100_000)]
Side = Annotated[int, Field(ge=1, le=4096)]
Crop = Annotated[float, Field(gt=0, le=1)]


class StatedPreprocessing(Contract):
    """What the caller says of it. A field left out is taken from the upload's own config; where there is none, from
    what the named architecture was published with, and for ONNX and torch.export nothing is done."""

    scale: Scale | None = None
    """Values are divided by this: 255 for a network that takes pixels from 0 to 1. `dataset`: by the brightest value of
    the dataset it teaches on, 255 or less."""
    mean: Centre | None = None
    """Subtracted after scaling: per channel of images, per input of tables, or one number for all."""
    std: Spread | None = None
    """What is left is divided by this, as `mean`."""
    size: Annotated[tuple[Side, Side], LaxTuple] | None = None
    """Height and width of the images the network takes; other images are resized to it."""
    crop: Crop | None = None
    """Share of the resized image that is kept, around its centre: 0.875 resizes to 256 and keeps 224."""
    fit: Fit | None = None
    """stretch: both sides become those of `size`. shorter-side: the shorter one does, and the longer is cut."""
    interpolation: Interpolation | None = None
    """The rule by which images are resized."""
    gray: Literal["repeat"] | None = None
    """repeat: a network of three channels gets gray images three times over. None: it refuses them."""
    colour: Literal["luminance"] | None = None
    """luminance: a network of one channel gets 0.299 R + 0.587 G + 0.114 B. None: it refuses colour images."""
    channels: Literal["rgb", "bgr"] | None = None
    """The order of colours the network takes, and mean and std are in; datasets are RGB."""
    layout: Literal["nchw", "nhwc"] | None = None
    """The order of axes the network takes. None: told from the shape of its input."""


class Preprocessing(Contract):
    """All of it, as it is done, in this order: gray or colour, resize, crop, order of channels, scale, mean and std,
    order of axes. Resizing is that of torch, antialiased, on floating point values that are not rounded in between."""

    scale: Scale = 1.0
    mean: Centre = ()
    """Empty: nothing is subtracted."""
    std: Spread = ()
    """Empty: nothing is divided."""
    size: Annotated[tuple[Side, Side], LaxTuple] | None = None
    """None: images are taken as they are."""
    crop: Crop = 1.0
    fit: Fit = "stretch"
    interpolation: Interpolation = "bilinear"
    gray: Literal["repeat"] | None = None
    colour: Literal["luminance"] | None = None
    channels: Literal["rgb", "bgr"] = "rgb"
    layout: Literal["nchw", "nhwc"] = "nchw"

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if len(self.mean) > 1 and len(self.std) > 1 and len(self.mean) != len(self.std):
            raise ValueError(f"std: it has {len(self.std)} numbers and mean has {len(self.mean)}; give as many")
        if self.size is None and self.crop != 1:
            raise ValueError("crop: it needs the size that is left after it")
        return self
