"""Architectures of the timm library (Apache-2.0), by name."""

from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor, nn

from distill.hub import PUBLIC, Hub
from distill.students.registry import register
from stillhouse.spec import DataFacts
from stillhouse.spec.errors import JobFailure
from stillhouse.spec.students import Architecture, Timm


class Enlarge(nn.Module):
    """[N, C, H, W] → [N, C, side, side], bilinear."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """Resize `x`."""
        return F.interpolate(x, size=(self.side, self.side), mode="bilinear", align_corners=False)


@register("timm")
def from_timm(architecture: Timm, facts: DataFacts) -> nn.Module:
    """The named network with random weights: [N, C, H, W] → logits [N, classes]. Nothing is downloaded."""
    net: nn.Module = _created(architecture, facts, classes=len(facts.classes))
    return net if architecture.input_size is None else nn.Sequential(Enlarge(architecture.input_size), net)


def make_ready(net: nn.Module, architecture: Architecture, facts: DataFacts, hub: Hub = PUBLIC) -> None:
    """Before a network is trained: try one of timm on this data, and load published weights if they are asked for.

    `net` is what `build` gave for `architecture`; other families need nothing. Raises JobFailure `student_unusable`
    when the network cannot take images of this size, `weights_unavailable` when the weights cannot be had,
    `secret_unavailable` when the token for them cannot.
    """
    if not isinstance(architecture, Timm):
        return
    _try(net, architecture, facts)
    if architecture.pretrained:
        body = net.get_submodule("network")
        own = body if architecture.input_size is None else body.get_submodule("1")
        own.load_state_dict(_published(architecture, facts, hub))


def _created(architecture: Timm, facts: DataFacts, *, classes: int, **more: Any) -> Any:
    # Imported when a job names one of its networks, and not before: the import takes a second or two, which neither
    # the parent of all trainers nor the other jobs should wait for.
    import timm

    if architecture.facts.grid:
        more["img_size"] = architecture.fed(facts)
    # Some of its networks compute buffers that are not saved, which a network on the meta device would never get.
    with torch.device("cpu"):
        return timm.create_model(
            architecture.architecture,
            num_classes=classes,
            in_chans=facts.shape[0],
            **more,
        )


def _try(net: nn.Module, architecture: Timm, facts: DataFacts) -> None:
    """One step forward as in training, without a trace: buffers and random numbers are what they were."""
    kept = {name: value.clone() for name, value in net.named_buffers()}
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            logits = net.train()(torch.zeros(2, *facts.shape))
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        raise _unusable(architecture, facts) from error
    for name, value in net.named_buffers():
        value.copy_(kept[name])
    if not isinstance(logits, Tensor) or logits.shape != (2, len(facts.classes)):
        raise _unusable(architecture, facts)


def _unusable(architecture: Timm, facts: DataFacts) -> JobFailure:
    height, width = architecture.fed(facts)
    return JobFailure(
        "student_unusable",
        f"timm's {architecture.architecture} gives no logits for images of {facts.shape[0]}×{height}×{width}.",
        hint=f"Set input_size, best to the {architecture.facts.side} it was designed for, or choose another network.",
    )


def _published(architecture: Timm, facts: DataFacts, hub: Hub) -> dict[str, Tensor]:
    """The usual published weights, fitted to the data's channels and classes; the last layer is random.

    Only a safetensors file is taken: timm itself would fall back to a pickle.
    """
    import timm
    from huggingface_hub import hf_hub_download

    known = timm.get_pretrained_cfg(architecture.architecture)
    if known is None or not known.hf_hub_id:
        raise _unavailable(architecture, "timm names none on the Hugging Face Hub")
    token = hub.token(architecture.hub_token)
    try:
        file = hf_hub_download(
            known.hf_hub_id,
            known.hf_hub_filename or "model.safetensors",
            token=token,
            endpoint=hub.address,
            cache_dir=hub.cache,
        )
    # The client raises its own errors and those of its transport; all that they share are these.
    except (OSError, RuntimeError, ValueError) as error:
        raise _unavailable(architecture, "they could not be downloaded") from error
    if not file.endswith(".safetensors"):
        raise _unavailable(architecture, "they are no safetensors file")
    # "file" goes before the hub, "custom_load" would read another format.
    where = {"file": file, "custom_load": False}
    try:
        # With the classes it was trained for every tensor must be in the file; with others timm lets any be missing.
        net = _created(architecture, facts, classes=known.num_classes, pretrained=True, pretrained_cfg_overlay=where)
        net.reset_classifier(len(facts.classes))
        state: dict[str, Tensor] = net.state_dict()
        return state
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise _unavailable(architecture, "the file on the Hub does not fit the network") from error


def _unavailable(architecture: Timm, reason: str) -> JobFailure:
    return JobFailure(
        "weights_unavailable",
        f"There are no published weights of timm's {architecture.architecture} to start from: {reason}.",
        hint="Leave pretrained out to start from random weights, give the worker a way to the Hugging Face Hub, or"
        " name a token in hub_token that may read them.",
    )
