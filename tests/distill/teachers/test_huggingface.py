"""Folders of transformers and of timm give what those libraries give, and nothing in them is run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from safetensors.torch import load, save
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES

from distill.teachers.huggingface import CLASSES
from stillhouse.spec.limits import Limits
from stillhouse.spec.teachers import ForeignConfig, HuggingFaceNet, Preprocessing, TimmNet
from tests.distill.teachers.making import (
    archive,
    folder_archive,
    images,
    normalised,
    randomised,
    refused,
    stored,
    teacher,
)

NAMES = {"0": "cat", "1": "dog", "2": "bird"}
TINY_VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def vit(**more: Any) -> nn.Module:
    torch.manual_seed(0)
    config = transformers.ViTConfig(**{**TINY_VIT, "image_size": 32, "patch_size": 8, "id2label": NAMES, **more})
    return transformers.ViTForImageClassification(config).eval()


def processor(**more: Any) -> Any:
    fields = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3, **more}
    return transformers.ViTImageProcessor(**fields)


def saved(network: nn.Module, folder: Path, preparing: Any = None, **more: Any) -> Path:
    """The folder of save_pretrained."""
    home = folder / "saved"
    network.save_pretrained(home, **more)  # type: ignore[operator]
    (preparing or processor()).save_pretrained(home)
    return home


def packed(network: nn.Module, folder: Path, preparing: Any = None, **more: Any) -> bytes:
    home = saved(network, folder, preparing, **more)
    data = folder_archive(home)
    for path in home.iterdir():
        path.unlink()
    home.rmdir()
    return data


def of_library(network: nn.Module, preparing: Any, x: Tensor) -> Tensor:
    """What the library gives for raw bytes."""
    fed = preparing(list(x.to(torch.uint8)), return_tensors="pt")
    with torch.no_grad():
        return network(**fed).logits  # type: ignore[no-any-return]


def test_a_folder_of_transformers_gives_what_transformers_gives(tmp_path: Path) -> None:
    network, preparing = vit(), processor()
    module, checked = teacher(packed(network, tmp_path, preparing), tmp_path)
    x = images(4, 3, 32, 32)
    assert torch.allclose(module(x), of_library(network, preparing, x), atol=1e-5)
    config = checked.config
    assert isinstance(config, ForeignConfig)
    assert config.classes == ("cat", "dog", "bird")
    assert config.preprocessing == Preprocessing(
        scale=255.0, mean=(0.5,) * 3, std=(0.25,) * 3, size=(32, 32), fit="stretch", interpolation="bilinear"
    )
    assert checked.format == "huggingface"


@pytest.mark.parametrize(
    ("make", "side"),
    [
        (lambda: transformers.ResNetForImageClassification(
            transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3)), 32),
        (lambda: transformers.ConvNextForImageClassification(
            transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=3)), 32),
        (lambda: transformers.SwinForImageClassification(
            transformers.SwinConfig(image_size=32, patch_size=4, embed_dim=12, depths=[1, 1], num_heads=[2, 2],
                                    window_size=4, num_labels=3)), 32),
        (lambda: transformers.DeiTForImageClassificationWithTeacher(
            transformers.DeiTConfig(image_size=32, patch_size=8, num_labels=3, **TINY_VIT)), 32),
        (lambda: transformers.Dinov2ForImageClassification(
            transformers.Dinov2Config(image_size=28, patch_size=14, hidden_size=16, num_hidden_layers=2,
                                      num_attention_heads=2, num_labels=3)), 28),
        (lambda: transformers.BeitForImageClassification(
            transformers.BeitConfig(image_size=32, patch_size=8, num_labels=3, **TINY_VIT)), 32),
        (lambda: transformers.LevitForImageClassification(transformers.LevitConfig(num_labels=3)), 224),
        (lambda: transformers.MobileNetV2ForImageClassification(
            transformers.MobileNetV2Config(image_size=32, depth_multiplier=0.35, num_labels=3)), 32),
    ],
)  # fmt: skip
def test_other_families_too(make: Any, side: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, preparing = randomised(make()), processor(size={"height": side, "width": side})
    module, checked = teacher(packed(network, tmp_path, preparing), tmp_path)
    x = images(3, 3, side, side)
    assert torch.allclose(module(x), of_library(network, preparing, x), atol=1e-5)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.classes is None, "LABEL_0 is no name"


def test_every_class_that_is_read_is_a_classifier_of_the_library() -> None:
    known = {
        name
        for names in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES.values()
        for name in ([names] if isinstance(names, str) else names)
    }
    assert set(CLASSES) <= known


@pytest.mark.parametrize(
    "preparing",
    [
        lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}, resample=3),
        lambda: transformers.ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=0.8),
        lambda: transformers.DeiTImageProcessor(
            size={"height": 40, "width": 40}, crop_size={"height": 32, "width": 32}
        ),
        lambda: transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}, do_normalize=False),
        lambda: transformers.ViTImageProcessor(size={"height": 32, "width": 32}, rescale_factor=1 / 127.5),
        lambda: transformers.LevitImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 32, "width": 32}),
    ],
)
def test_preprocessing_is_that_of_the_librarys_own_processor(preparing: Any, tmp_path: Path) -> None:
    network, made = vit(), preparing()
    module, _ = teacher(packed(network, tmp_path, made), tmp_path)
    x = smooth(2, 48, 60)
    mine = module.prepare(x)
    theirs = torch.as_tensor(np.stack(made(list(x.to(torch.uint8)), return_tensors="np")["pixel_values"]))
    assert mine.shape == theirs.shape
    spread = float(theirs.max() - theirs.min())
    # The library rounds resized images to bytes, half a step of 255.
    assert float((mine - theirs).abs().max()) < spread * 2 / 255


def smooth(rows: int, height: int, width: int) -> Tensor:
    """Images whose values and means are whole numbers and vary slowly."""
    across = torch.linspace(0, 255, width).view(1, 1, 1, -1)
    down = torch.linspace(0, 255, height).view(1, 1, -1, 1)
    shift = torch.tensor([0.2, 0.5, 0.8]).view(1, 3, 1, 1)
    return ((across * shift + down * (1 - shift)).expand(rows, -1, -1, -1)).round()


def test_what_the_caller_states_goes_before_the_files_own(tmp_path: Path) -> None:
    data = packed(vit(), tmp_path)
    config = stored(data, tmp_path, preprocessing={"mean": [0.1], "channels": "bgr"}, classes=["a", "b", "c"]).config
    assert isinstance(config, ForeignConfig)
    assert (config.preprocessing.mean, config.preprocessing.std) == ((0.1,), (0.25,) * 3)
    assert config.preprocessing.channels == "bgr"
    assert config.classes == ("a", "b", "c")


def test_sharded_weights_are_put_together(tmp_path: Path) -> None:
    network, preparing = vit(), processor()
    data = packed(network, tmp_path, preparing, max_shard_size="10KB")
    assert b"model.safetensors.index.json" in data
    module, _ = teacher(data, tmp_path)
    x = images(2, 3, 32, 32)
    assert torch.allclose(module(x), of_library(network, preparing, x), atol=1e-5)


def test_a_folder_may_be_packed_with_its_name_and_with_other_files(tmp_path: Path) -> None:
    home = saved(vit(), tmp_path)
    (home / "README.md").write_text("# a model")
    data = folder_archive(home, "my model/")
    for path in home.iterdir():
        path.unlink()
    home.rmdir()
    assert stored(data, tmp_path).format == "huggingface"


def test_half_precision_stays_on_disk(tmp_path: Path) -> None:
    network = vit().half()
    module, _ = teacher(packed(network, tmp_path), tmp_path)
    kept = load((tmp_path / "teacher" / "model.safetensors").read_bytes())
    assert {value.dtype for value in kept.values()} == {torch.float16}
    assert torch.allclose(
        module(images(2, 3, 32, 32)), of_library(network.float(), processor(), images(2, 3, 32, 32)), atol=1e-4
    )


def test_a_folder_that_says_nothing_of_preprocessing_needs_the_callers_word(tmp_path: Path) -> None:
    home = saved(vit(), tmp_path)
    members = {name: (home / name).read_bytes() for name in ("config.json", "model.safetensors")}
    for path in home.iterdir():
        path.unlink()
    home.rmdir()
    error = refused(archive(members), tmp_path)
    assert (error.errors[0].pointer, error.errors[0].code) == ("/options/preprocessing/scale", "no_preprocessing")
    stated = {"scale": 255, "mean": [0.5], "std": [0.5], "size": [32, 32]}
    assert stored(archive(members), tmp_path, preprocessing=stated).format == "huggingface"


def members_of(network: nn.Module, folder: Path) -> dict[str, Any]:
    """config.json, preprocessor_config.json and the weights, the first two parsed."""
    home = saved(network, folder)
    members: dict[str, Any] = {
        "config.json": json.loads((home / "config.json").read_text()),
        "preprocessor_config.json": json.loads((home / "preprocessor_config.json").read_text()),
        "model.safetensors": (home / "model.safetensors").read_bytes(),
    }
    for path in home.iterdir():
        path.unlink()
    home.rmdir()
    return members


def repacked(members: dict[str, Any]) -> bytes:
    return archive({name: json.dumps(value) if isinstance(value, dict) else value for name, value in members.items()})


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        ({"auto_map": {"AutoModel": "evil.py--Evil"}}, "custom_code", "auto_map"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "quantised", "quantization_config"),
        ({"architectures": ["EvilForImageClassification"]}, "unknown_architecture", "architectures"),
        ({"architectures": ["BertModel"]}, "unknown_architecture", "architectures"),
        ({"architectures": None}, "unknown_architecture", "architectures"),
        ({"architectures": "ViTForImageClassification"}, "unknown_architecture", "architectures"),
        ({"hidden_size": 1_000_000, "intermediate_size": 4_000_000}, "too_many_parameters", ""),
        ({"num_hidden_layers": 200_000}, "too_many_parameters", ""),
        ({"hidden_size": "wide"}, "corrupt_config", ""),
        ({"hidden_size": -16}, "corrupt_config", ""),
        ({"num_attention_heads": 0}, "corrupt_config", ""),
        ({"hidden_size": 10**30}, "corrupt_config", ""),
        ({"id2label": {"0": "a", "7": "b"}}, "corrupt_config", "id2label"),
        ({"nested": [[[[[[]]]]]]}, "corrupt_config", "nested"),
        ({"vision_config": {"_attn_implementation": "evil/kernel"}}, "custom_code", "vision_config"),
    ],
)
def test_a_config_that_cannot_be_trusted_or_built_is_refused(
    change: dict[str, Any], code: str, pointer: str, tmp_path: Path
) -> None:
    members = members_of(vit(), tmp_path)
    members["config.json"] |= change
    error = refused(repacked(members), tmp_path)
    assert error.errors[0].code == code
    assert error.errors[0].pointer.endswith(pointer)


def test_how_the_library_computes_is_not_for_the_upload_to_say(tmp_path: Path) -> None:
    members = members_of(vit(), tmp_path)
    members["config.json"] |= {
        "attn_implementation": "evil/kernels",
        "_attn_implementation": "evil",
        "_name_or_path": "x",
    }
    config = stored(repacked(members), tmp_path).config
    assert isinstance(config, ForeignConfig)
    assert isinstance(config.network, HuggingFaceNet)
    assert not [key for key in config.network.config if key.startswith("_") or "attn" in key.split("_")]


def test_weights_of_another_model_are_listed(tmp_path: Path) -> None:
    members = members_of(vit(), tmp_path)
    members["config.json"]["num_hidden_layers"] = 3
    error = refused(repacked(members), tmp_path)
    assert {entry.code for entry in error.errors} == {"missing_tensors"}
    members["config.json"]["num_hidden_layers"] = 1
    assert {e.code for e in refused(repacked(members), tmp_path).errors} == {"unexpected_tensors"}
    members["config.json"] |= {"num_hidden_layers": 2, "intermediate_size": 48}
    assert {e.code for e in refused(repacked(members), tmp_path).errors} == {"wrong_shapes"}


def test_nan_in_the_weights_is_refused_by_name(tmp_path: Path) -> None:
    members = members_of(vit(), tmp_path)
    state = load(members["model.safetensors"])
    state["classifier.bias"][1] = torch.nan
    error = refused(repacked(members | {"model.safetensors": save(state)}), tmp_path)
    assert (error.errors[0].pointer, error.errors[0].code) == ("/file/tensors/classifier.bias", "weights_not_finite")


def test_weights_as_pickles_are_refused_with_the_way_out(tmp_path: Path) -> None:
    members = members_of(vit(), tmp_path)
    members["pytorch_model.bin"] = members.pop("model.safetensors")
    error = refused(repacked(members), tmp_path)
    assert error.errors[0].code == "missing_member"
    assert "pytorch_model.bin" in error.detail


def test_a_limit_on_parameters_holds(tmp_path: Path) -> None:
    error = refused(repacked(members_of(vit(), tmp_path)), tmp_path, Limits(max_teacher_parameters=100))
    assert error.errors[0].code == "too_many_parameters"


def timm_members(**more: Any) -> tuple[nn.Module, dict[str, Any]]:
    torch.manual_seed(0)
    network = randomised(timm.create_model("resnet10t", num_classes=3))
    prepared = {
        "input_size": [3, 40, 40],
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": [0.4] * 3,
        "std": [0.3] * 3,
    }
    config = {
        "architecture": "resnet10t",
        "num_classes": 3,
        "pretrained_cfg": prepared,
        "label_names": ["n1", "n2", "n3"],
    }
    return network, {"config.json": config | more, "model.safetensors": save(network.state_dict())}


def test_a_folder_of_timm_gives_what_timm_gives(tmp_path: Path) -> None:
    network, members = timm_members(label_descriptions={"n1": "cat", "n2": "dog", "n3": "bird"})
    module, checked = teacher(repacked(members), tmp_path)
    config = checked.config
    assert isinstance(config, ForeignConfig)
    assert config.network == TimmNet(architecture="resnet10t")
    assert config.classes == ("cat", "dog", "bird")
    assert (config.preprocessing.size, config.preprocessing.crop) == ((40, 40), 0.9)
    transform = timm.data.create_transform(
        (3, 40, 40), interpolation="bicubic", mean=(0.4,) * 3, std=(0.3,) * 3, crop_pct=0.9
    )
    x = smooth(1, 60, 60)
    from PIL import Image

    fed = transform(Image.fromarray(x[0].permute(1, 2, 0).to(torch.uint8).numpy()))[None]
    assert float((module.prepare(x) - fed).abs().max()) < 2 / 255 / 0.3
    with torch.no_grad():
        assert torch.allclose(module(x), network(module.prepare(x)), atol=1e-5)


def test_a_network_of_timm_that_transformers_wraps_is_read_as_timms(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.TimmWrapperConfig(architecture="resnet10t", num_labels=3)
    network = randomised(transformers.TimmWrapperForImageClassification(config))
    home = tmp_path / "saved"
    network.save_pretrained(home)
    data = folder_archive(home)
    for path in home.iterdir():
        path.unlink()
    home.rmdir()
    module, checked = teacher(data, tmp_path, preprocessing={"size": [32, 32]})
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.network == TimmNet(architecture="resnet10t")
    assert checked.config.classes is None
    x = images(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(module(x), network(module.prepare(x)).logits, atol=1e-5)


def test_arguments_that_could_name_a_file_are_refused(tmp_path: Path) -> None:
    for argument in ("checkpoint_path", "pretrained_cfg_overlay", "act_layer", "pretrained"):
        _, members = timm_members(model_args={argument: "/etc/passwd"})
        error = refused(repacked(members), tmp_path)
        assert error.errors[0].code == "custom_code"
        assert argument in error.detail


def test_an_unknown_architecture_of_timm_comes_with_close_names(tmp_path: Path) -> None:
    _, members = timm_members(architecture="resnet1888")
    error = refused(repacked(members), tmp_path)
    assert error.errors[0].code == "unknown_architecture"
    assert "timm/resnet18" in error.detail


def test_normalised_is_the_formula() -> None:
    assert torch.equal(normalised(torch.full((1, 3, 1, 1), 255.0), (0.5,) * 3, (0.5,) * 3), torch.ones(1, 3, 1, 1))
