"""What the service keeps of an uploaded teacher beside its file: enough to rebuild the network and to feed it."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from stillhouse.spec.base import View
from stillhouse.spec.events import ModelConfig
from stillhouse.spec.facts import Task
from stillhouse.spec.teachers.preprocessing import Preprocessing


class HuggingFaceNet(View):
    """An image classifier of the transformers library."""

    kind: Literal["huggingface"] = "huggingface"
    config: dict[str, Any]
    """Its config.json, without anything that names code."""


class TimmNet(View):
    """A network of the timm library."""

    kind: Literal["timm"] = "timm"
    architecture: str
    size: tuple[int, int] | None = Field(default=None, strict=False)
    """Images it was built for, where the network has to know; None: its own."""
    arguments: dict[str, bool | int | float | str] = Field(default_factory=dict)
    """What its config says of its making, from a closed list: global_pool and the like."""


class TorchvisionNet(View):
    """A classifier of torchvision."""

    kind: Literal["torchvision"] = "torchvision"
    architecture: str


class OnnxNet(View):
    """An ONNX graph, run by ONNX Runtime on the CPU."""

    kind: Literal["onnx"] = "onnx"
    input: str
    output: str
    dtype: Literal["float32", "float16", "float64", "uint8", "int8", "int32", "int64"]
    """What its input takes; values are converted, rounded for integers."""
    batch: int | None = None
    """Rows it takes at once; None: any number."""


class ExportedNet(View):
    """A program of torch.export."""

    kind: Literal["torch-export"] = "torch-export"
    dtype: Literal["float32", "float16", "bfloat16", "float64", "uint8", "int8", "int16", "int32", "int64"] = "float32"
    """What its input takes; values are converted, rounded for integers."""
    batch: int | None = None
    """Rows it takes at once; None: any number."""


Network = Annotated[
    HuggingFaceNet | TimmNet | TorchvisionNet | OnnxNet | ExportedNet,
    Field(discriminator="kind"),
]


class ForeignConfig(View):
    """config.json of a teacher that was made elsewhere."""

    format: Literal["stillhouse-teacher/1"] = "stillhouse-teacher/1"
    network: Network
    task: Task
    shape: tuple[int | None, ...] = Field(strict=False)
    """One row as the network takes it: (channels, height, width), whatever its layout, or (inputs,). None: any."""
    outputs: int
    """Classes it tells apart."""
    gives: Literal["logits", "probabilities"] = "logits"
    classes: tuple[str, ...] | None = Field(default=None, strict=False)
    """Their names; None: nobody said."""
    preprocessing: Preprocessing = Preprocessing()
    parameters: int
    """Numbers in its weights."""


StoredConfig = Annotated[ModelConfig | ForeignConfig, Field(discriminator="format")]
"""config.json of any model the service holds, told apart by `format`."""
STORED_CONFIG: TypeAdapter[ModelConfig | ForeignConfig] = TypeAdapter(StoredConfig)

_FILES = {"onnx": "model.onnx", "torch-export": "model.pt2"}


def weights_file(config: ModelConfig | ForeignConfig) -> str:
    """Name the weights must have in the folder `distill.teachers.load` reads, beside config.json."""
    return (
        "model.safetensors" if isinstance(config, ModelConfig) else _FILES.get(config.network.kind, "model.safetensors")
    )
