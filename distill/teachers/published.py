"""What an architecture of timm or torchvision was published with: the preprocessing of a file that says nothing."""

from collections.abc import Mapping
from typing import Any

from stillhouse.spec.teachers import Preprocessing

_KNOWN = ("bilinear", "bicubic", "nearest")


def of_timm(architecture: str) -> Preprocessing | None:
    """From timm's own record of it; None when it has none."""
    import timm

    record = timm.get_pretrained_cfg(architecture)
    return None if record is None else of_timm_config(vars(record))


def of_timm_config(config: Mapping[str, Any]) -> Preprocessing:
    """From a `pretrained_cfg` as timm writes it. Raises ValueError, TypeError or KeyError when it is not one."""
    height, width = (int(side) for side in config["input_size"][1:])
    interpolation = config.get("interpolation", "bilinear")
    return Preprocessing(
        scale=255.0,
        mean=tuple(float(number) for number in config["mean"]),
        std=tuple(float(number) for number in config["std"]),
        size=(height, width),
        crop=float(config.get("crop_pct") or 0.875),
        fit="stretch" if config.get("crop_mode") == "squash" else "shorter-side",
        interpolation=interpolation if interpolation in _KNOWN else "bicubic",
    )


def of_torchvision(architecture: str) -> Preprocessing:
    """From the transforms of its usual weights, which are not downloaded for it."""
    from torchvision import models

    preset = models.get_model_weights(architecture).DEFAULT.transforms()
    (side,), (resized,) = preset.crop_size, preset.resize_size
    return Preprocessing(
        scale=255.0,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        size=(side, side),
        crop=side / resized,
        fit="shorter-side",
        interpolation=preset.interpolation.value,
    )
