"""Checkpoints of timm and torchvision give what their own libraries give."""

from collections import OrderedDict
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save
from torch import nn
from torchvision import models

from stillhouse.spec.limits import Limits
from stillhouse.spec.teachers import ForeignConfig, TimmNet
from tests.distill.teachers.making import IMAGENET, images, normalised, pth, randomised, refused, stored, teacher

AS_32 = {"preprocessing": {"size": [32, 32]}}


def resnet(classes: int = 7, name: str = "resnet10t", **more: object) -> nn.Module:
    torch.manual_seed(0)
    return randomised(timm.create_model(name, num_classes=classes, **more))


def test_a_timm_checkpoint_gives_what_timm_gives(tmp_path: Path) -> None:
    network = resnet()
    module, checked = teacher(save(network.state_dict()), tmp_path, architecture="timm/resnet10t", **AS_32)
    x = images(5, 3, 32, 32)
    with torch.no_grad():
        wanted = network(normalised(x, **IMAGENET))
    assert torch.allclose(module(x), wanted, atol=1e-5)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.outputs == 7
    assert checked.format == "checkpoint"
    assert checked.config.parameters == sum(v.numel() for v in network.state_dict().values())
    assert any("published with" in note for note in checked.notes)


def test_the_preprocessing_an_architecture_was_published_with_is_taken(tmp_path: Path) -> None:
    config = stored(save(resnet().state_dict()), tmp_path, architecture="timm/resnet10t").config
    assert isinstance(config, ForeignConfig)
    known = timm.get_pretrained_cfg("resnet10t")
    assert config.preprocessing.size == known.input_size[1:]
    assert config.preprocessing.mean == known.mean
    assert config.preprocessing.crop == known.crop_pct
    assert config.preprocessing.interpolation == known.interpolation


def test_a_teacher_is_frozen_and_stays_in_eval_mode(tmp_path: Path) -> None:
    network = resnet()
    module, _ = teacher(save(network.state_dict()), tmp_path, architecture="timm/resnet10t", **AS_32)
    x = images(4, 3, 32, 32).requires_grad_()
    before = module(x)
    module.train()
    assert torch.equal(module(x), before)
    assert not before.requires_grad
    assert not any(p.requires_grad for p in module.parameters())


def test_a_torchvision_checkpoint_gives_what_torchvision_gives(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = randomised(models.resnet18(num_classes=4))
    module, checked = teacher(pth(network.state_dict()), tmp_path, architecture="torchvision/resnet18")
    x = images(2, 3, 256, 256)
    preset = models.ResNet18_Weights.DEFAULT.transforms()
    with torch.no_grad():
        wanted = network(preset(x.to(torch.uint8)))
    assert torch.allclose(module(x), wanted, atol=1e-5)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.preprocessing.size == (224, 224)


def test_images_of_another_size_are_resized_as_torchvision_documents(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = randomised(models.mobilenet_v2(num_classes=4))
    module, _ = teacher(pth(network.state_dict()), tmp_path, architecture="torchvision/mobilenet_v2")
    x = images(2, 3, 300, 260)
    with torch.no_grad():
        wanted = network(models.MobileNet_V2_Weights.DEFAULT.transforms()(x / 255))
    assert torch.allclose(module(x), wanted, atol=1e-4)


@pytest.mark.parametrize("name", ["squeezenet1_1", "inception_v3", "googlenet", "vit_b_16", "densenet121"])
def test_the_number_of_classes_of_torchvisions_families_is_told_from_the_weights(name: str, tmp_path: Path) -> None:
    more = {"init_weights": False, "aux_logits": False} if name in ("inception_v3", "googlenet") else {}
    torch.manual_seed(0)
    network = models.get_model(name, num_classes=6, **more)
    config = stored(pth(network.state_dict()), tmp_path, architecture=f"torchvision/{name}").config
    assert isinstance(config, ForeignConfig)
    assert config.outputs == 6


@pytest.mark.parametrize(
    "name", ["vit_tiny_patch16_224", "mobilenetv3_small_050", "levit_128s", "convnext_atto", "vit_small_patch14_dinov2"]
)
def test_the_number_of_classes_of_timms_families_is_told_from_the_weights(name: str, tmp_path: Path) -> None:
    sized = {"img_size": 56} if "dinov2" in name else {}
    network = resnet(6, name, **sized)
    stated = {"preprocessing": {"size": [56, 56]}} if sized else {}
    config = stored(save(network.state_dict()), tmp_path, architecture=f"timm/{name}", **stated).config
    assert isinstance(config, ForeignConfig)
    assert config.outputs == 6


def test_channels_and_image_size_are_told_from_the_weights_and_the_stated_shape(tmp_path: Path) -> None:
    network = resnet(3, "vit_tiny_patch16_224", img_size=32, in_chans=1, depth=2)
    data = save(network.state_dict())
    assert "depth" not in str(network)
    error = refused(data, tmp_path, architecture="timm/vit_tiny_patch16_224", shape=[1, 32, 32])
    assert {entry.code for entry in error.errors} == {"missing_tensors"}, "ten of its twelve blocks are not there"
    whole = resnet(3, "vit_tiny_patch16_224", img_size=32, in_chans=1)
    grey = {"scale": 255, "mean": [0.5], "std": [0.5]}
    options = {"architecture": "timm/vit_tiny_patch16_224", "shape": [1, 32, 32], "preprocessing": grey}
    module, checked = teacher(save(whole.state_dict()), tmp_path, **options)
    x = images(3, 1, 32, 32)
    with torch.no_grad():
        assert torch.allclose(module(x), whole(normalised(x, (0.5,), (0.5,))), atol=1e-5)
    assert isinstance(checked.config, ForeignConfig)
    assert checked.config.shape == (1, None, None)
    assert checked.config.network == TimmNet(architecture="vit_tiny_patch16_224", size=(32, 32))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state},
        lambda state: {"epoch": 3, "model_state_dict": state, "optimizer": {"lr": 0.1}},
        lambda state: {"net": {f"module.{k}": v for k, v in state.items()}, "acc": 93.2, "epoch": 199},
        lambda state: {"model": state, "model_ema": {k: v + 1 for k, v in state.items()}},
        lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()} | {"criterion.w": torch.ones(3)}},
        lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()},
        lambda state: {"ema": {"module": state}},
        lambda state: OrderedDict((k, v) for k, v in state.items() if not k.endswith("num_batches_tracked")),
    ],
)
def test_wrapped_checkpoints_are_unwrapped(wrap: object, tmp_path: Path) -> None:
    network = resnet()
    data = pth(wrap(network.state_dict()))  # type: ignore[operator]
    module, _ = teacher(data, tmp_path, architecture="timm/resnet10t", **AS_32)
    x = images(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(module(x), network(normalised(x, **IMAGENET)), atol=1e-5)


def test_a_checkpoint_saved_on_cuda_is_read(tmp_path: Path) -> None:
    network = resnet()
    data = pth(network.state_dict())
    # Where a storage lived is one short string of the pickle, so the file can be made without a GPU.
    tagged = rewritten(data, b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert tagged != data
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(__import__("io").BytesIO(tagged), weights_only=True)
    module, _ = teacher(tagged, tmp_path, architecture="timm/resnet10t", **AS_32)
    x = images(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(module(x), network(normalised(x, **IMAGENET)), atol=1e-5)


def rewritten(data: bytes, old: bytes, new: bytes) -> bytes:
    """The archive of a checkpoint with `old` replaced in its pickle."""
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as given, zipfile.ZipFile(out, "w") as made:
        for member in given.infolist():
            content = given.read(member)
            made.writestr(
                member.filename, content.replace(old, new) if member.filename.endswith("data.pkl") else content
            )
    return out.getvalue()


@pytest.mark.parametrize(("dtype", "kept"), [(torch.float16, "F16"), (torch.bfloat16, "BF16"), (torch.float64, "F32")])
def test_half_precision_stays_on_disk_and_becomes_single_in_memory(
    dtype: torch.dtype, kept: str, tmp_path: Path
) -> None:
    network = resnet()
    state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in network.state_dict().items()}
    module, _ = teacher(save(state), tmp_path, architecture="timm/resnet10t", **AS_32)
    assert kept.encode() in (tmp_path / "teacher" / "model.safetensors").read_bytes()[:2000]
    assert all(p.dtype == torch.float32 for p in module.parameters())
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})
    x = images(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(module(x), network(normalised(x, **IMAGENET)), atol=1e-5)


def test_keys_of_another_architecture_are_listed_and_the_right_one_is_named(tmp_path: Path) -> None:
    error = refused(save(resnet(7, "resnet34").state_dict()), tmp_path, architecture="timm/resnet50")
    assert {entry.code for entry in error.errors} == {"missing_tensors", "wrong_shapes"}
    assert "layer1.0.bn3" in str(error)
    assert "timm/resnet34" in str(error.hint)


def test_a_checkpoint_without_an_architecture_is_told_which_it_looks_like(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = models.mobilenet_v2(num_classes=3)
    error = refused(pth({f"module.{k}": v for k, v in network.state_dict().items()}), tmp_path)
    assert (error.errors[0].pointer, error.errors[0].code) == ("/options/architecture", "no_architecture")
    assert "torchvision/mobilenet_v2" in str(error.hint)


@pytest.mark.parametrize("name", ["timm/resnet1888", "torchvision/resnet1888"])
def test_an_unknown_architecture_comes_with_close_names(name: str, tmp_path: Path) -> None:
    error = refused(save({"a": torch.ones(1)}), tmp_path, architecture=name)
    assert (error.errors[0].pointer, error.errors[0].code) == ("/options/architecture", "unknown_architecture")
    assert f"{name.partition('/')[0]}/resnet18" in error.detail


class Renamed:
    """A resnet10t whose keys have other names, in the order of timm's."""

    def __init__(self) -> None:
        self.network = resnet()
        self.state = {f"tensor_{i:03}": v for i, v in enumerate(self.network.state_dict().values())}


def test_keys_that_differ_but_agree_in_order_need_the_callers_word(tmp_path: Path) -> None:
    error = refused(pth(Renamed().state), tmp_path, architecture="timm/resnet10t", **AS_32)
    assert "set match to order" in str(error.hint)


def test_matching_by_order_gives_the_same_network(tmp_path: Path) -> None:
    renamed = Renamed()
    module, _ = teacher(pth(renamed.state), tmp_path, architecture="timm/resnet10t", match="order", **AS_32)
    x = images(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(module(x), renamed.network(normalised(x, **IMAGENET)), atol=1e-5)


def test_matching_by_order_is_refused_where_the_order_or_a_shape_says_nothing(tmp_path: Path) -> None:
    state = Renamed().state
    error = refused(save(state), tmp_path, architecture="timm/resnet10t", match="order", **AS_32)
    assert (error.errors[0].pointer, error.errors[0].code) == ("/options/match", "option_does_not_apply")
    turned = dict(reversed(state.items()))
    error = refused(pth(turned), tmp_path, architecture="timm/resnet10t", match="order", **AS_32)
    assert error.errors[0].code == "wrong_shapes"


def test_class_names_must_be_as_many_as_outputs(tmp_path: Path) -> None:
    data = save(resnet().state_dict())
    error = refused(data, tmp_path, architecture="timm/resnet10t", classes=["a", "b"], **AS_32)
    assert (error.errors[0].pointer, error.errors[0].code) == ("/options/classes", "wrong_classes")
    named = stored(data, tmp_path, architecture="timm/resnet10t", classes=list("abcdefg"), **AS_32)
    assert isinstance(named.config, ForeignConfig)
    assert named.config.classes == tuple("abcdefg")


def test_a_network_beyond_the_limit_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    error = refused(
        save(resnet().state_dict()), tmp_path, Limits(max_teacher_parameters=1000), architecture="timm/resnet10t"
    )
    assert error.errors[0].code == "too_many_parameters"


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    state = {k: v.to(torch.int8) if k.endswith("weight") else v for k, v in resnet().state_dict().items()}
    error = refused(save(state), tmp_path, architecture="timm/resnet10t", **AS_32)
    assert error.errors[0].code == "wrong_types"
    assert "names differ" not in str(error.hint)
