"""Start a shrunk student from its teacher: keep the units that matter most, in the layers that are kept.

Each family lists its tensors as slices of the teacher's: `Slices` maps a tensor of the student to one of the teacher's
and to the rows (outputs) and columns (inputs) to take. A unit matters as much as what it sends on: the norm of the
weights that read it times the norm (or the batch norm's scale, Liu et al. 2017, arXiv:1708.06519) that writes it. Of
stages with shortcuts whole blocks are kept, evenly spaced, as DistilBERT keeps alternate layers (Sanh et al. 2019,
arXiv:1910.01108). A layer whose inputs the teacher does not have keeps its random start.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.spec.students import Architecture, Cnn, Mlp, Mobilenet, Resnet

State = dict[str, Tensor]


@dataclass
class Slices:
    """The student's tensors, cut out of the teacher's."""

    teacher: State
    cut: State = field(default_factory=dict)

    def weight(self, to: str, source: str, rows: Tensor | None, columns: Tensor | None) -> None:
        """Outputs `rows` and inputs `columns` of a linear layer or convolution; None: all. The bias too, if any."""
        weight = self.teacher[f"{source}.weight"]
        weight = weight if rows is None else weight[rows]
        self.cut[f"{to}.weight"] = weight if columns is None else weight[:, columns]
        if (bias := self.teacher.get(f"{source}.bias")) is not None:
            self.cut[f"{to}.bias"] = bias if rows is None else bias[rows]

    def norm(self, to: str, source: str, rows: Tensor) -> None:
        """A batch norm with its running statistics."""
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.cut[f"{to}.{name}"] = self.teacher[f"{source}.{name}"][rows]


def inherit(student: nn.Module, teacher: nn.Module, small: Architecture, large: Architecture) -> tuple[int, int]:
    """Overwrite the weights of `student`, a `small`, with slices of `teacher`'s, a `large` of the same family.

    Both are networks of `build` for the same data. Returns how many parameters were taken over, and how many there are.
    Raises ValueError when there is no rule for the family.
    """
    family = _FAMILIES.get(type(large))
    if family is None or type(small) is not type(large):
        raise ValueError(f"a {small.name} cannot start from the layers of a {large.name}")
    prefix = "network."
    state = {name.removeprefix(prefix): value for name, value in teacher.state_dict().items()}
    slices = Slices(state)
    family(slices, small, large)
    mine = student.state_dict()
    for name, value in slices.cut.items():
        # Shapes are those of the specs; copy_ would broadcast a wrong one in silence.
        if mine[prefix + name].shape != value.shape:
            raise ValueError(f"{name} is {list(value.shape)} in the teacher, {list(mine[prefix + name].shape)} here")
        mine[prefix + name].copy_(value)
    taken = sum(slices.cut[name].numel() for name in slices.cut if not name.endswith(("running_mean", "running_var")))
    return taken, sum(p.numel() for p in student.parameters())


def recalibrate(net: nn.Module, rows: Tensor, *, batch: int = 128) -> None:
    """Measure the running statistics of all batch norms anew on `rows` [n, …], n at least 2.

    Fewer channels sum to other means than the teacher's, and an average of the two would be right for neither.
    """
    norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    usual = [layer.momentum for layer in norms]
    for layer in norms:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over the batches
    net.train()
    with torch.no_grad():
        for part in rows.tensor_split(max(1, len(rows) // batch)):
            net(part)
    for layer, momentum in zip(norms, usual, strict=True):
        layer.momentum = momentum


def _mlp(slices: Slices, small: Mlp, large: Mlp) -> None:
    there, here = _linears(large), _linears(small)
    units: Tensor | None = None
    for position, width in enumerate(small.hidden):
        weight, after = slices.teacher[f"{there[position]}.weight"], slices.teacher[f"{there[position + 1]}.weight"]
        kept = _strongest(torch.linalg.vector_norm(weight, dim=1) * torch.linalg.vector_norm(after, dim=0), width)
        slices.weight(here[position], there[position], kept, units)
        units = kept
    if len(small.hidden) == len(large.hidden):
        slices.weight(here[-1], there[-1], None, units)


def _linears(net: Mlp) -> list[str]:
    """Names of the linear layers: a Flatten, then Linear, ReLU and, with dropout, Dropout for each hidden layer."""
    first, step = 1 + bool(net.input_dropout), 2 + bool(net.dropout)
    return [str(first + step * position) for position in range(len(net.hidden) + 1)]


def _cnn(slices: Slices, small: Cnn, large: Cnn) -> None:
    channels: Tensor | None = None
    for position, width in enumerate(small.channels):
        conv, norm = f"{4 * position}", f"{4 * position + 1}"
        last = position + 1 == len(large.channels)
        reader = _classifier(slices.teacher) if last else f"{4 * position + 4}"
        sent = _columns_norm(slices.teacher[f"{reader}.weight"])
        kept = _strongest(slices.teacher[f"{norm}.weight"].abs() * sent, width)
        slices.weight(conv, conv, kept, channels)
        slices.norm(norm, norm, kept)
        channels = kept
    if len(small.channels) == len(large.channels):
        # Blocks of four with the pool, none after the last; then the average and, in the teacher, perhaps a dropout.
        slices.weight(str(4 * len(small.channels)), _classifier(slices.teacher), None, channels)


def _resnet(slices: Slices, small: Resnet, large: Resnet) -> None:
    streams = (_projected_streams if large.projects else _padded_streams)(slices.teacher, small, large)
    slices.weight("0", "0", streams[0], None)
    slices.norm("1", "1", streams[0])
    before, here, there = streams[0], 3, 3
    for stage, stream in enumerate(streams):
        for block, source in enumerate(_evenly(large.blocks[stage], small.blocks[stage])):
            to, of = f"{here + block}", f"{there + source}"
            width = small.width * 2**stage
            sent = _columns_norm(slices.teacher[f"{of}.conv2.weight"])
            inner = _strongest(slices.teacher[f"{of}.norm1.weight"].abs() * sent, width)
            slices.weight(f"{to}.conv1", f"{of}.conv1", inner, before)
            slices.norm(f"{to}.norm1", f"{of}.norm1", inner)
            slices.weight(f"{to}.conv2", f"{of}.conv2", stream, inner)
            slices.norm(f"{to}.norm2", f"{of}.norm2", stream)
            if small.projects and stage and not block:
                slices.weight(f"{to}.project.0", f"{of}.project.0", stream, before)
                slices.norm(f"{to}.project.1", f"{of}.project.1", stream)
            before = stream
        here, there = here + small.blocks[stage], there + large.blocks[stage]
    slices.weight(f"{here + 1}", f"{there + 1}", None, before)


def _projected_streams(teacher: State, small: Resnet, large: Resnet) -> list[Tensor]:
    """Channels to keep of each stage: a projection reads any of the stage before, so each chooses its own strongest."""
    return [
        _strongest(_stream_strength(teacher, large, stage), small.width * 2**stage)
        for stage in range(len(large.blocks))
    ]


def _padded_streams(teacher: State, small: Resnet, large: Resnet) -> list[Tensor]:
    """Channels to keep of what the shortcuts of each stage carry.

    A shortcut into the next stage pads channels on both sides, so the channels kept there are those kept here, moved,
    with new ones on either side: as many as the student's own shortcut pads.
    """
    streams = [_strongest(_stream_strength(teacher, large, 0), small.width)]
    for stage in (1, 2):
        width, kept = large.width * 2 ** (stage - 1), small.width * 2 ** (stage - 1)
        left, keep_left = width // 2, kept // 2
        strength = _stream_strength(teacher, large, stage)
        first = _strongest(strength[:left], keep_left)
        last = _strongest(strength[left + width :], kept - keep_left) + left + width
        streams.append(torch.cat([first, streams[-1] + left, last]))
    return streams


def _stream_strength(teacher: State, net: Resnet, stage: int) -> Tensor:
    """How much is written to each channel of a stage's stream, by the scales of the batch norms that write it."""
    first = 3 + sum(net.blocks[:stage])
    scales = [teacher[f"{first + block}.norm2.weight"].abs() for block in range(net.blocks[stage])]
    if stage == 0:
        scales.append(teacher["1.weight"].abs())
    elif net.projects:
        scales.append(teacher[f"{first}.project.1.weight"].abs())
    return torch.stack(scales).sum(0)


def _mobilenet(slices: Slices, small: Mobilenet, large: Mobilenet) -> None:
    state, many, few = slices.teacher, large.depth, small.depth
    before, place = torch.empty(0), 1
    for stage in range(4):
        sources = [f"{1 + stage * many + block}" for block in range(many)]
        written = [state[f"{of}.project.1.weight"].abs() for of in sources]
        if stage == 0:
            written.append(state["0.1.weight"].abs())  # the first stage's shortcuts carry the stem on
        stream = _strongest(torch.stack(written).sum(0), small.blocks[stage * few].after)
        if stage == 0:
            slices.weight("0.0", "0.0", stream, None)
            slices.norm("0.1", "0.1", stream)
            before = stream
        for source in _evenly(many, few):
            _inverted(slices, f"{place}", sources[source], before, stream, small.blocks[place - 1].inner)
            before, place = stream, place + 1
    head, linear = f"{1 + 4 * many}", f"{3 + 4 * many}"  # the average stands between them
    sent = _columns_norm(state[f"{linear}.weight"])
    kept = _strongest(state[f"{head}.1.weight"].abs() * sent, small.head)
    slices.weight(f"{place}.0", f"{head}.0", kept, before)
    slices.norm(f"{place}.1", f"{head}.1", kept)
    slices.weight(f"{place + 2}", linear, None, kept)


def _inverted(slices: Slices, to: str, of: str, before: Tensor, after: Tensor, inner: int) -> None:
    state = slices.teacher
    if f"{of}.expand.0.weight" in state:
        sent = _columns_norm(state[f"{of}.project.0.weight"])
        kept = _strongest(state[f"{of}.filter.1.weight"].abs() * sent, inner)
        slices.weight(f"{to}.expand.0", f"{of}.expand.0", kept, before)
        slices.norm(f"{to}.expand.1", f"{of}.expand.1", kept)
    else:
        kept = before
    slices.weight(f"{to}.filter.0", f"{of}.filter.0", kept, None)  # depthwise: an output has one input, its own
    slices.norm(f"{to}.filter.1", f"{of}.filter.1", kept)
    slices.weight(f"{to}.project.0", f"{of}.project.0", after, kept)
    slices.norm(f"{to}.project.1", f"{of}.project.1", after)


_FAMILIES: dict[type, Callable[[Slices, Any, Any], None]] = {
    Mlp: _mlp,
    Cnn: _cnn,
    Resnet: _resnet,
    Mobilenet: _mobilenet,
}


def _strongest(strength: Tensor, count: int) -> Tensor:
    """Indices of the `count` largest, in rising order; of equal ones the first."""
    return strength.sort(descending=True, stable=True).indices[:count].sort().values


def _columns_norm(weight: Tensor) -> Tensor:
    """Norm of what reads each input: [out, in, …] → [in]."""
    norms: Tensor = torch.linalg.vector_norm(weight.transpose(0, 1).flatten(1), dim=1)
    return norms


def _evenly(many: int, few: int) -> list[int]:
    """`few` of `many` positions: the first, and others evenly spaced up to the last."""
    return [0] if few == 1 else [round(position * (many - 1) / (few - 1)) for position in range(few)]


def _classifier(state: State) -> str:
    """Name of the last layer of a cnn."""
    return max((name.removesuffix(".weight") for name in state if name.endswith(".weight")), key=int)
