"""timm's own folder: config.json with `architecture` and `pretrained_cfg`, and model.safetensors."""

from collections.abc import Mapping
from typing import Any

from distill.teachers import checkpoint, tensors
from distill.teachers.draft import Draft
from distill.teachers.networks import unknown
from distill.teachers.package import Package
from distill.teachers.published import of_timm, of_timm_config
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import invalid, quoted, unsupported
from stillhouse.spec.teachers import Preprocessing, TeacherOptions, TimmNet

AT = "/file/members/config.json"
ARGUMENTS: dict[str, tuple[type, ...]] = {
    "class_token": (bool,),
    "depth": (int,),
    "embed_dim": (int,),
    "fc_norm": (bool,),
    "global_pool": (str,),
    "init_values": (int, float),
    "mlp_ratio": (int, float),
    "no_embed_class": (bool,),
    "num_heads": (int,),
    "patch_size": (int,),
    "qkv_bias": (bool,),
    "reg_tokens": (int,),
}
"""Arguments of its networks that `model_args` may set. Others could name a file, a download or a class."""
_SET_OTHERWISE = ("img_size", "in_chans", "num_classes")


def is_timms(config: Mapping[str, Any]) -> bool:
    """Whether timm wrote it, or transformers for a network of timm's that it wraps."""
    return "architecture" in config and ("pretrained_cfg" in config or config.get("model_type") == "timm_wrapper")


def read(package: Package, options: TeacherOptions, limits: Limits) -> Draft:
    """The network of the folder. Raises InvalidData, TooLarge or UnsupportedMedia."""
    config = package.config
    name = str(config["architecture"])
    if reason := unknown("timm", name):
        raise unsupported(f"{AT}/architecture", "unknown_architecture", reason)
    preparing, channels, notes = _preparing(name, config.get("pretrained_cfg"))
    state: tensors.State = {}
    for path in package.weights:
        state |= tensors.read_safetensors(path)
    return checkpoint.fitted(
        state,
        TimmNet(architecture=name, arguments=_arguments(config.get("model_args"))),
        options,
        limits,
        published=preparing,
        channels=channels,
        classes=_names(config),
        notes=notes,
    )


def _preparing(name: str, given: Any) -> tuple[Preprocessing, int | None, list[str]]:
    """What the folder says of preprocessing and channels, or what the architecture was published with."""
    if given is None:
        note = f"What is not stated of its preprocessing is what timm/{name} was published with."
        return of_timm(name) or Preprocessing(scale=255.0), None, [note]
    try:
        return of_timm_config(given), int(given["input_size"][0]), []
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        detail = "pretrained_cfg of config.json must have input_size, mean and std, as timm writes it."
        raise invalid(f"{AT}/pretrained_cfg", "corrupt_config", detail) from None


def _arguments(given: Any) -> dict[str, bool | int | float | str]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise invalid(f"{AT}/model_args", "corrupt_config", "model_args of config.json is no JSON object.")
    kept: dict[str, bool | int | float | str] = {}
    for key, value in given.items():
        if key in _SET_OTHERWISE:
            continue  # the weights and pretrained_cfg say it
        if key not in ARGUMENTS or not _is_one_of(value, ARGUMENTS[key]):
            detail = f"model_args of config.json sets {quoted(key)}, which is not taken from an upload."
            hint = "Upload the model as ONNX or as a program of torch.export."
            raise invalid(f"{AT}/model_args", "custom_code", detail, hint)
        kept[key] = value
    return kept


def _is_one_of(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) and (isinstance(value, bool) == (bool in kinds))


def _names(config: dict[str, Any]) -> tuple[str, ...] | None:
    """label_names, in the words of label_descriptions where it has them."""
    names, words = config.get("label_names"), config.get("label_descriptions")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return None
    if names == [f"LABEL_{index}" for index in range(len(names))]:
        return None  # what transformers fills in
    if isinstance(words, dict) and all(isinstance(words.get(name), str) for name in names):
        return tuple(words[name] for name in names)
    return tuple(names)
