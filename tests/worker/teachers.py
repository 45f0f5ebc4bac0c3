"""Real teachers from elsewhere: small networks trained with plain torch, written as their makers write them."""

import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

Prepare = Callable[[Tensor], Tensor]
WHITE = 16.0
"""The brightest value of the digits."""


@dataclass(frozen=True)
class Digits:
    """The stored digits, read without our code: x float32 [N, 1, 8, 8], y int64 [N], by split."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


def read_digits(path: Path) -> Digits:
    """The three splits of a stored dataset."""
    stored = load_file(path)
    parts = [(stored["x"][stored["split"] == i].float(), stored["y"][stored["split"] == i]) for i in range(3)]
    return Digits(*parts)


class Small(nn.Module):
    """A convolutional network for rows [N, 1, 8, 8] from 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 24, 3, padding=1), nn.ReLU(), nn.Conv2d(24, 32, 3, stride=2), nn.ReLU())
        self.head = nn.Linear(32 * 9, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 10]."""
        logits: Tensor = self.head(self.body(x).flatten(1))
        return logits


class ChannelsLast(nn.Module):
    """A network that takes [N, H, W, C] and gives probabilities."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities [N, 10]."""
        return torch.softmax(self.net(x.permute(0, 3, 1, 2)), 1)


def unit(x: Tensor) -> Tensor:
    """Raw digits → 0 to 1."""
    return x / WHITE


def enlarged(x: Tensor) -> Tensor:
    """Raw digits → what the network of timm takes: 32×32, colour, from -1 to 1."""
    x = F.interpolate(x, (32, 32), mode="bilinear", align_corners=False, antialias=True).expand(-1, 3, -1, -1)
    return (x / WHITE - 0.5) / 0.5


def trained(net: nn.Module, prepare: Prepare, rows: tuple[Tensor, Tensor], *, epochs: int) -> nn.Module:
    """The network after some epochs of plain Adam."""
    torch.manual_seed(0)
    x, y = rows
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    net.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            given = net(prepare(x[batch]))
            optimizer.zero_grad()
            F.cross_entropy(getattr(given, "logits", given), y[batch]).backward()
            optimizer.step()
    return net.eval()


@torch.no_grad()
def accuracy(net: nn.Module, prepare: Prepare, rows: tuple[Tensor, Tensor]) -> float:
    """Share of rows the network itself has right."""
    given = net(prepare(rows[0]))
    return float((getattr(given, "logits", given).argmax(1) == rows[1]).double().mean())


def small() -> nn.Module:
    """A fresh `Small`."""
    torch.manual_seed(1)
    return Small()


def of_timm() -> nn.Module:
    """A ResNet of timm with the dials of its table."""
    torch.manual_seed(1)
    return timm.create_model("test_resnet", num_classes=10)


def of_transformers() -> ViTForImageClassification:
    """A tiny vision transformer for 8×8."""
    torch.manual_seed(1)
    config = ViTConfig(
        image_size=8,
        patch_size=2,
        num_channels=1,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        id2label={i: str(i) for i in range(10)},
        label2id={str(i): i for i in range(10)},
    )
    return ViTForImageClassification(config)


def as_folder(net: ViTForImageClassification, folder: Path) -> Path:
    """What save_pretrained leaves, with the processor's file."""
    net.save_pretrained(folder)
    processor = {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": 8, "width": 8},
        "do_rescale": True,
        "rescale_factor": 1 / WHITE,
        "do_normalize": False,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    (folder / "training_args.bin").write_bytes(b"of no use here")
    return folder


def as_checkpoint(net: nn.Module, path: Path) -> Path:
    """A .pth as training scripts write it: wrapped, and prefixed by DataParallel."""
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, path)
    return path


def as_onnx(net: nn.Module, path: Path, *, batch: int = 10, data_beside: bool = False) -> Path:
    """A graph that takes [batch, 8, 8, 1] and gives probabilities, in one file or with its weights in another."""
    rows = (torch.zeros(batch, 8, 8, 1),)
    torch.onnx.export(ChannelsLast(net).eval(), rows, path, dynamo=True, external_data=data_beside)
    return path


def as_onnx_folder(net: nn.Module, folder: Path) -> Path:
    """The graph of `as_onnx` in a folder, its weights in a file beside it."""
    folder.mkdir()
    as_onnx(net, folder / "model.onnx", data_beside=True)
    assert (folder / "model.onnx.data").stat().st_size > 4 * 32 * 9 * 10
    return folder


def as_program(net: nn.Module, path: Path) -> Path:
    """A program of torch.export for any number of rows."""
    rows = torch.export.Dim("rows", min=2, max=4096)
    program = torch.export.export(net, (torch.zeros(4, 1, 8, 8),), dynamic_shapes={"x": {0: rows}})
    torch.export.save(program, path)
    return path


def pairs(digits: Digits, path: Path, *, most: int = 600) -> Path:
    """A ZIP of five class folders, two digits in each, as PNG images with values up to 240."""
    x, y = digits.train
    with zipfile.ZipFile(path, "w") as archive:
        for number, (image, label) in enumerate(zip(x[:most], y[:most], strict=False)):
            buffer = io.BytesIO()
            Image.fromarray((image[0] * 15).byte().numpy()).save(buffer, "PNG")
            archive.writestr(f"{PAIRS[int(label) // 2]}/{number}.png", buffer.getvalue())
    return path


PAIRS = ("zero or one", "two or three", "four or five", "six or seven", "eight or nine")
