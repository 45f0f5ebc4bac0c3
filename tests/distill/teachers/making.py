"""Teachers as their libraries write them, made on the spot, and the way they take through the reader."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from distill.teachers import load
from distill.teachers.read import read
from stillhouse.spec.errors import StillhouseError
from stillhouse.spec.limits import Limits
from stillhouse.spec.teachers import CheckedTeacher, IntakeRequest, TeacherOptions, weights_file

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def archive(members: Mapping[str, bytes | str]) -> bytes:
    """A ZIP of these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return out.getvalue()


def folder_archive(folder: Path, prefix: str = "") -> bytes:
    """A ZIP of all files in a folder."""
    return archive({f"{prefix}{path.name}": path.read_bytes() for path in sorted(folder.iterdir())})


def request(data: bytes, folder: Path, limits: Limits | None = None, **options: object) -> IntakeRequest:
    """The upload in a file of `folder`, and what is said of it."""
    (folder / "upload").write_bytes(data)
    return IntakeRequest(
        source=str(folder / "upload"),
        output=str(folder / "stored"),
        options=TeacherOptions.model_validate(options),
        limits=limits or Limits(),
    )


def stored(data: bytes, folder: Path, limits: Limits | None = None, **options: object) -> CheckedTeacher:
    """What the reader makes of an upload; its file is `folder`/stored."""
    return read(request(data, folder, limits, **options))


def teacher(data: bytes, folder: Path, *, white: float = 255.0, **options: object) -> tuple[nn.Module, CheckedTeacher]:
    """The upload, read, stored and loaded as a job does."""
    checked = stored(data, folder, **options)
    home = folder / "teacher"
    home.mkdir()
    (folder / "stored").rename(home / weights_file(checked.config))
    (home / "config.json").write_text(checked.config.model_dump_json())
    module, config = load(home, white=white)
    assert config == checked.config
    return module, checked


def refused(data: bytes, folder: Path, limits: Limits | None = None, **options: object) -> StillhouseError:
    """How the reader refuses an upload; nothing is stored then."""
    with pytest.raises(StillhouseError) as caught:
        stored(data, folder, limits, **options)
    assert {path.name for path in folder.iterdir()} <= {"upload", "stored.partial"}
    assert not (folder / "stored").exists()
    assert "/tmp" not in str(caught.value)
    assert caught.value.errors, "the place is named"
    return caught.value


def images(*shape: int, seed: int = 0) -> Tensor:
    """Random bytes as float32."""
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(seed)).float()


def normalised(x: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Bytes to what most networks take, as every library documents it."""
    return (x / 255 - torch.tensor(mean).view(1, -1, 1, 1)) / torch.tensor(std).view(1, -1, 1, 1)


def pth(content: object) -> bytes:
    """What torch.save writes."""
    out = io.BytesIO()
    torch.save(content, out)
    return out.getvalue()


def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """The network in eval mode, with batch norms that are not the identity."""
    draw = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean = torch.randn(module.num_features, generator=draw) * 0.1
            module.running_var = torch.rand(module.num_features, generator=draw) + 0.5
    return network.eval()


class Axes(nn.Module):
    """Takes NHWC, as graphs from TensorFlow do."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(0, 3, 1, 2))  # type: ignore[no-any-return]
