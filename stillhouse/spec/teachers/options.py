"""What a caller may say about the file of a teacher."""

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from stillhouse.spec import forms
from stillhouse.spec.base import Contract, LaxTuple
from stillhouse.spec.teachers.preprocessing import StatedPreprocessing

TeacherFormat = Literal["huggingface", "checkpoint", "onnx", "torch-export", "stillhouse"]
"""huggingface: a ZIP of config.json and model.safetensors, as transformers or timm write it. checkpoint: a state dict
of timm or torchvision, .safetensors or .pth. onnx: one graph in one file, or a ZIP of it and its data files.
torch-export: a .pt2 of torch.export.save. stillhouse: a ZIP of the config.json and model.safetensors of a finished
job."""

ArchitectureName = Annotated[str, StringConstraints(pattern=forms.ARCHITECTURE)]
ClassName = Annotated[str, StringConstraints(min_length=1, max_length=500)]


class StatedNetwork(Contract):
    """What the file holds. Whatever is left out is taken from the file, as far as it says."""

    format: TeacherFormat | Literal["auto"] = "auto"
    """auto: told from the bytes."""
    architecture: ArchitectureName | None = None
    """Of a checkpoint: `timm/resnet18` or `torchvision/resnet18`."""
    match: Literal["name", "order"] = "name"
    """Of a checkpoint. name: each tensor goes where its name says. order: the first tensor of the file goes to the
    first of the architecture, and so on, only when all shapes agree: for files of another implementation of the same
    network."""
    outputs: Literal["logits", "probabilities", "auto"] = "auto"
    """What the network gives for each class. auto: probabilities when an ONNX graph or a program ends in a softmax,
    otherwise logits."""
    classes: Annotated[tuple[ClassName, ...], LaxTuple, Field(min_length=2, max_length=100_000)] | None = None
    """Name of each output, in order. Without names here and in the file, a teacher fits datasets of as many classes."""
    shape: Annotated[tuple[Annotated[int, Field(ge=1, le=100_000)], ...], LaxTuple] | None = None
    """One row the network takes, (channels, height, width) or (inputs,), where the file leaves it open."""

    @model_validator(mode="after")
    def _shape_is_of_images_or_tables(self) -> Self:
        if self.shape is not None and len(self.shape) not in (1, 3):
            raise ValueError("shape: give (channels, height, width) of images or (inputs,) of tables")
        if self.classes is not None and len(set(self.classes)) < len(self.classes):
            double = next(name for i, name in enumerate(self.classes) if name in self.classes[:i])
            raise ValueError(f"classes: {double!r} is there twice")
        return self


class TeacherOptions(StatedNetwork):
    """How to read it."""

    preprocessing: StatedPreprocessing = StatedPreprocessing()
