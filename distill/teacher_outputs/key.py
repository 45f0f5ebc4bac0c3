"""Under what outputs are filed: a digest of everything they depend on, down to the last bit."""

import hashlib
import json
from typing import Any

import torch

from distill.device import bits_depend_on, precision_here
from distill.stages import VIEW_STREAM, Stage
from distill.teacher_outputs.layout import Layout
from distill.teacher_outputs.voice import tile_rows


def key_of(
    dataset_sha256: str, teacher: str, stage: Stage | None, layout: Layout, temperature: float | None, x: torch.Tensor
) -> str:
    """The key of a teacher's outputs, of which `teacher` is the fingerprint, for the views of a stage, or without one
    for the rows held out; `x` is one row or more as the teacher takes it."""
    views: list[Any] = ["held out"] if stage is None else []
    if stage is not None and (layout.views > 1 or stage.views is not None):
        views = [stage.augmentation.model_dump(mode="json"), stage.seed, VIEW_STREAM, layout.views]
    top = None if layout.top_k is None else [layout.top_k, temperature]
    precision = "fp32" if stage is None else precision_here(stage.precision, x.device)
    parts = ["outputs/1", dataset_sha256, teacher, views, precision, top, tile_rows(x), *bits_depend_on(x.device)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
