"""A Hugging Face folder: config.json and safetensors, of transformers or of timm. No code in it is run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn

from distill.teachers import tensors, timm_hub
from distill.teachers.draft import OPTIONS, Draft, settled
from distill.teachers.image_processor import processing
from distill.teachers.networks import LIBRARY_ERRORS, Logits, TooBig, counted, transformers_class, transformers_net
from distill.teachers.package import INDEX, Package
from stillhouse.spec.errors import FieldError
from stillhouse.spec.limits import Limits
from stillhouse.spec.refusing import all_invalid, invalid, pointer, quoted, some, too_large, unsupported
from stillhouse.spec.teachers import HuggingFaceNet, TeacherOptions
from stillhouse.spec.teachers.preprocessing import Preprocessing

AT = "/file/members/config.json"

CLASSES = (
    "BeitForImageClassification",
    "BitForImageClassification",
    "CLIPForImageClassification",
    "ConvNextForImageClassification",
    "ConvNextV2ForImageClassification",
    "CvtForImageClassification",
    "Data2VecVisionForImageClassification",
    "DeiTForImageClassification",
    "DeiTForImageClassificationWithTeacher",
    "Dinov2ForImageClassification",
    "Dinov2WithRegistersForImageClassification",
    "EfficientNetForImageClassification",
    "FocalNetForImageClassification",
    "HGNetV2ForImageClassification",
    "HieraForImageClassification",
    "IJepaForImageClassification",
    "LevitForImageClassification",
    "LevitForImageClassificationWithTeacher",
    "MetaClip2ForImageClassification",
    "MobileNetV1ForImageClassification",
    "MobileNetV2ForImageClassification",
    "MobileViTForImageClassification",
    "MobileViTV2ForImageClassification",
    "PoolFormerForImageClassification",
    "PvtForImageClassification",
    "PvtV2ForImageClassification",
    "RegNetForImageClassification",
    "ResNetForImageClassification",
    "SegformerForImageClassification",
    "SiglipForImageClassification",
    "SwiftFormerForImageClassification",
    "SwinForImageClassification",
    "Swinv2ForImageClassification",
    "TextNetForImageClassification",
    "ViTForImageClassification",
    "ViTMSNForImageClassification",
)
"""Classifiers of transformers that take `pixel_values` alone and give `logits`."""

_CODE = ("auto_map", "custom_pipelines", "trust_remote_code")
_QUANTISED = ("quantization_config", "compression_config")
# How the library computes, where it came from, what it answers beside logits: ours to say, or of no use.
_DROPPED = (
    "attn_implementation",
    "experts_implementation",
    "torch_dtype",
    "dtype",
    "transformers_version",
    "return_dict",
    "use_return_dict",
    "output_hidden_states",
    "output_attentions",
    "torchscript",
    "use_kernels",
    "problem_type",
)
_DEEPEST = 4
_MOST_TENSORS = 10_000


def read(package: Package, options: TeacherOptions, limits: Limits) -> Draft:
    """The network of the folder. Raises InvalidData, TooLarge or UnsupportedMedia."""
    check_code(package.config)
    if timm_hub.is_timms(package.config):
        return timm_hub.read(package, options, limits)
    config = checked_config(package.config)
    names = _names(config)
    own, notes = _own_preprocessing(package.processor, options)
    _check_size(config, limits)
    network, state = _loaded(package, config)
    tensors.check_finite(state)
    return Draft(
        network=HuggingFaceNet(config=config),
        module=Logits(network).eval(),
        write=lambda path: tensors.write(state, path),
        shape=(_channels(config), None, None),
        preprocessing=settled(options.preprocessing, own),
        parameters=sum(value.numel() for value in state.values()),
        classes=names,
        notes=notes,
    )


def check_code(config: Mapping[str, Any]) -> None:
    """Raises InvalidData for a config that names code of its own, or weights that are packed by some quantiser."""
    if found := [key for key in _CODE if config.get(key)]:
        detail = f"config.json names code of its own ({found[0]}), and code in an upload is never run."
        hint = "Upload the model as an ONNX graph or as a program of torch.export, which need none."
        raise invalid(f"{AT}/{found[0]}", "custom_code", detail, hint)
    if found := [key for key in _QUANTISED if config.get(key)]:
        detail = f"The model is quantised ({found[0]})."
        raise invalid(f"{AT}/{found[0]}", "quantised", detail, "Upload it in float32, float16 or bfloat16.")


def checked_config(config: dict[str, Any]) -> dict[str, Any]:
    """The config as it is stored: plain values alone, one known architecture, nothing that chooses how to compute."""
    given = config.get("architectures")
    name = given[0] if isinstance(given, list) and len(given) == 1 and isinstance(given[0], str) else ""
    if name not in CLASSES:
        said = f"architectures is {quoted(json.dumps(given))}" if given else "it has no architectures"
        detail = f"config.json names no image classifier that is read here: {said}."
        hint = f"It must name one, such as {some(['ViTForImageClassification', *CLASSES[:1]])}; or upload it as ONNX."
        raise unsupported(f"{AT}/architectures", "unknown_architecture", detail, hint)
    kept = {key: value for key, value in config.items() if not key.startswith("_") and key not in _DROPPED}
    for key, value in kept.items():
        _check_plain(value, key, 1)
    return kept


def _check_plain(value: Any, key: str, depth: int) -> None:
    if depth > _DEEPEST:
        detail = f"{quoted(key)} of config.json is nested too deeply."
        raise invalid(f"{AT}/{key}", "corrupt_config", detail)
    if isinstance(value, dict):
        if any(inner.startswith("_") or inner in (*_CODE, *_QUANTISED) for inner in value):
            detail = f"{quoted(key)} of config.json has fields that are the library's own."
            raise invalid(f"{AT}/{key}", "custom_code", detail, "Leave fields that start with _ and those of code out.")
        for inner in _DROPPED:
            value.pop(inner, None)
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_plain(part, key, depth + 1)


def _check_size(config: dict[str, Any], limits: Limits) -> None:
    """Build it without memory first: a config of a hundred billion parameters costs nothing to write."""
    _class(config)
    try:
        with counted(limits.max_teacher_parameters, _MOST_TENSORS):
            transformers_net(config)
    except TooBig:
        detail = f"The network has more than the limit of {limits.max_teacher_parameters:,} parameters."
        raise too_large(AT, "too_many_parameters", detail, "Upload a smaller teacher.") from None
    except (*LIBRARY_ERRORS, StrictDataclassError) as error:
        raise _broken(error) from None


def _class(config: dict[str, Any]) -> Any:
    try:
        return transformers_class(config)
    except ImportError:
        detail = "Models of transformers are not read here: the library is not installed."
        hint = "Install stillhouse[huggingface] beside the service, or upload the model as ONNX."
        raise unsupported("/file", "not_installed", detail, hint) from None


def _loaded(package: Package, config: dict[str, Any]) -> tuple[nn.Module, dict[str, Tensor]]:
    """The network with its weights as float32, and those as they are stored, under today's names of the library."""
    kind, folder = _class(config), package.weights[0].parent
    given = {name: value for path in package.weights for name, value in tensors.read_safetensors(path).items()}
    _arrange(folder, config, package.weights)
    try:
        network, said = kind.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            dtype=torch.float32,
        )
    except LIBRARY_ERRORS as error:
        raise _broken(error) from None
    except OSError:
        raise _broken(ValueError("the weights do not belong to it")) from None
    _check_loaded(said)
    state = network.state_dict()
    if len(kinds := {value.dtype for value in given.values() if value.is_floating_point()}) == 1:
        (kept,) = kinds
        if kept in tensors.KEPT:
            state = {name: value.to(kept) if value.is_floating_point() else value for name, value in state.items()}
    return network.eval(), state


def _arrange(folder: Path, config: dict[str, Any], weights: tuple[Path, ...]) -> None:
    """The folder as the library expects it, with nothing in it but what was checked."""
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    if len(weights) == 1:
        weights[0].rename(folder / "model.safetensors")
        return
    places = {name: path.name for path in weights for name in tensors.read_safetensors(path)}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}), encoding="utf-8")


def _check_loaded(said: Mapping[str, Any]) -> None:
    errors = []
    for key, code, sentence in (
        ("missing_keys", "missing_tensors", "The file lacks"),
        ("unexpected_keys", "unexpected_tensors", "The network has no"),
        ("mismatched_keys", "wrong_shapes", "The network has another shape of"),
        ("error_msgs", "corrupt_tensors", "The library says of the weights:"),
    ):
        # A mismatch comes with its two shapes.
        names = sorted(str(entry[0] if isinstance(entry, tuple) else entry) for entry in said.get(key) or ())
        if names:
            at = pointer("tensors", names[0])
            errors.append(FieldError(pointer=at, code=code, detail=f"{sentence} {some(list(map(quoted, names)))}."))
    if errors:
        raise all_invalid("The weights do not fit config.json.", errors, "Pack the files of one save_pretrained.")


def _broken(error: Exception) -> Exception:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    detail = f"No network can be made of config.json: {quoted(reason)}."
    return invalid(AT, "corrupt_config", detail, "Pack the config.json that save_pretrained wrote beside the weights.")


def _own_preprocessing(processor: dict[str, Any] | None, options: TeacherOptions) -> tuple[Preprocessing, list[str]]:
    if processor is not None:
        return processing(processor, options.preprocessing)
    if options.preprocessing.scale is None:
        detail = "The folder has no preprocessor_config.json: nothing says how images are prepared."
        hint = "Pack that file too, or state preprocessing.scale, mean, std and size."
        raise invalid(f"{OPTIONS}/preprocessing/scale", "no_preprocessing", detail, hint)
    return Preprocessing(), []


def _names(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    """id2label, unless it is the library's own filling."""
    given = config.get("id2label")
    if not isinstance(given, dict):
        return None
    names = tuple(given.get(str(index)) for index in range(len(given)))
    if not all(isinstance(name, str) and name for name in names):
        detail = f"id2label of config.json must name the classes 0 to {len(given) - 1}."
        raise invalid(f"{AT}/id2label", "corrupt_config", detail)
    default = tuple(f"LABEL_{index}" for index in range(len(names)))
    return None if names == default else tuple(map(str, names))


def _channels(config: Mapping[str, Any]) -> int:
    vision = config.get("vision_config")
    where = vision if isinstance(vision, dict) else config
    channels = where.get("num_channels", where.get("in_channels", 3))
    return channels if isinstance(channels, int) and 1 <= channels <= 1000 else 3
