"""Teacher classes → dataset classes, after the logits."""

import torch
from torch import Tensor, nn

from stillhouse.spec.teachers import LabelMap


def map_logits(logits: Tensor, to: Tensor, classes: int) -> Tensor:
    """Logits [N, teacher classes] → logits [N, classes].

    `to` int64 [teacher classes] says where each leads, -1 nowhere; every class must be reached. Output c is logsumexp
    of the logits that lead to c. The softmax of the outputs is then the teacher's own softmax summed over the classes
    that lead to c, divided by its sum over all that lead anywhere: p(c | one of the mapped classes). In float32. A
    temperature divides these outputs: softening comes after the sum.
    """
    used = (to >= 0).nonzero().flatten()
    return _summed(logits, used, to[used], classes)


def _summed(logits: Tensor, used: Tensor, leads_to: Tensor, classes: int) -> Tensor:
    kept = logits.float()[:, used]
    place = leads_to.expand_as(kept)
    shape = (kept.shape[0], classes)  # not len(): an exported graph would have that number of rows for ever
    # A maximum of its own for each class: one over all would let small classes underflow.
    highest = kept.new_full(shape, -torch.inf).scatter_reduce(1, place, kept, "amax")
    total = kept.new_zeros(shape).scatter_add(1, place, (kept - highest.gather(1, place)).exp())
    return total.log() + highest


class MappedTeacher(nn.Module):
    """A teacher that answers in the classes of the dataset: rows → logits [N, classes]."""

    def __init__(self, teacher: nn.Module, label_map: LabelMap, classes: int) -> None:
        super().__init__()
        self.teacher, self.classes = teacher, classes
        to = torch.tensor(label_map.to, dtype=torch.int64)
        used = (to >= 0).nonzero().flatten()  # here, as an exported graph cannot look at values
        self.register_buffer("used", used, persistent=False)
        self.register_buffer("leads_to", to[used], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of the dataset's classes."""
        logits: Tensor = self.teacher(x)
        return _summed(logits, self.get_buffer("used"), self.get_buffer("leads_to"), self.classes)


def mapped(teacher: nn.Module, label_map: LabelMap, classes: int) -> nn.Module:
    """`teacher`, answering in the dataset's `classes`; itself when its classes are those already."""
    if leads_nowhere_else(label_map, classes):
        return teacher
    return MappedTeacher(teacher, label_map, classes)


def leads_nowhere_else(label_map: LabelMap, classes: int) -> bool:
    """True when a teacher's classes are the dataset's `classes` already, in their order."""
    return label_map.changes_nothing and len(label_map.to) == classes
