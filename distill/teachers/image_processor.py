"""preprocessor_config.json of transformers, in our words."""

from collections.abc import Mapping
from typing import Any

from stillhouse.spec.refusing import invalid
from stillhouse.spec.teachers import Preprocessing, StatedPreprocessing

AT = "/file/members/preprocessor_config.json"
_SIDES = 384
"""From this size on ConvNeXt's processor stretches images and crops nothing."""
_RESAMPLE = {0: "nearest", 1: "bicubic", 2: "bilinear", 3: "bicubic"}


def processing(given: Mapping[str, Any], stated: StatedPreprocessing) -> tuple[Preprocessing, list[str]]:
    """What the file says, and notes. Raises InvalidData where it cannot be followed and the caller says nothing."""
    kind = str(given.get("image_processor_type") or given.get("feature_extractor_type") or "")
    # It normalises twice, or shifts after scaling: neither is what the words here can say.
    for key in ("include_top", "rescale_offset"):
        if given.get(key) and (stated.mean is None or stated.std is None or stated.scale is None):
            detail = f"{key} of preprocessor_config.json is not followed here."
            hint = "State preprocessing.scale, mean and std."
            raise invalid(f"{AT}/{key}", "no_preprocessing", detail, hint)
    try:
        preparing = Preprocessing.model_validate(
            {
                **_range(given),
                **(_size(given, kind) if given.get("do_resize", True) else _crop_alone(given)),
                "interpolation": _RESAMPLE.get(given.get("resample", 2), "bilinear"),
                "channels": "bgr" if given.get("do_flip_channel_order") else "rgb",
            }
        )
    except (ValueError, TypeError, KeyError, AttributeError, ZeroDivisionError) as error:
        detail = "preprocessor_config.json does not say how images are prepared, or contradicts itself."
        raise invalid(AT, "corrupt_config", detail, "Pack the file save_pretrained wrote.") from error
    lanczos = given.get("resample") == 1
    return preparing, ["Images are resized bicubically where the file says lanczos."] if lanczos else []


def _range(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if given.get("do_rescale", True):
        scale = 1 / float(given.get("rescale_factor", 1 / 255))
        found["scale"] = float(round(scale)) if abs(scale - round(scale)) < 1e-6 * scale else scale
    if given.get("do_normalize", True):
        for name in ("mean", "std"):
            numbers = given[f"image_{name}"]
            found[name] = tuple(map(float, numbers if isinstance(numbers, list) else [numbers]))
    return found


def _size(given: Mapping[str, Any], kind: str) -> dict[str, Any]:
    size = given.get("size")
    if size is None:
        return {}
    size = {"shortest_edge": size} if isinstance(size, int) and given.get("do_center_crop") else size
    size = {"height": size, "width": size} if isinstance(size, int) else size
    if "shortest_edge" not in size:
        height, width = int(size["height"]), int(size["width"])
        return _cropped(given, (height, width), "stretch")
    side = int(size["shortest_edge"])
    if kind.startswith("ConvNext") or given.get("crop_pct") is not None:
        if side >= _SIDES:
            return {"size": (side, side), "fit": "stretch"}
        crop = float(given.get("crop_pct") or 224 / 256)
        return {"size": (side, side), "crop": crop, "fit": "shorter-side"}
    if kind.startswith("Levit"):
        side = int(256 / 224 * side)
    return _cropped(given, (side, side), "shorter-side")


def _cropped(given: Mapping[str, Any], size: tuple[int, int], fit: str) -> dict[str, Any]:
    """Resized to `size`, of which the middle is kept."""
    if not given.get("do_center_crop") or given.get("crop_size") is None:
        return {"size": size, "fit": fit}
    kept = _crop_size(given)
    if kept[0] * size[1] != kept[1] * size[0] or kept[0] > size[0]:
        raise ValueError("a crop of another form, or larger than the image")
    return {"size": kept, "crop": kept[0] / size[0], "fit": fit}


def _crop_alone(given: Mapping[str, Any]) -> dict[str, Any]:
    if given.get("do_center_crop"):
        raise ValueError("images are cut and not resized")
    return {}


def _crop_size(given: Mapping[str, Any]) -> tuple[int, int]:
    size = given["crop_size"]
    return (size, size) if isinstance(size, int) else (int(size["height"]), int(size["width"]))
