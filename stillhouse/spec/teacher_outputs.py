"""What becomes of the teacher's outputs: worked out once and kept, or asked for again at every batch."""

import math
from typing import Annotated, Literal

from pydantic import Field

from stillhouse.spec.base import AUTO, Auto, Contract

MOST_VIEWS = 1000


class TeacherOutputs(Contract):
    """The teacher runs once over the training data where it can, and its outputs are kept for all later jobs of the
    project on the same data and teacher."""

    views: Annotated[int, Field(ge=1, le=MOST_VIEWS)] | Literal["live"] | Auto = AUTO
    """A number k: outputs for k random views of each row are kept, and epoch e shows view e mod k, to the baseline too.
    Without augmentation there is one view. live: the teacher runs on every batch, and every epoch shows new views.
    auto: one view without augmentation. With it: live when a pass of the teacher costs at most 1.5 passes of the
    student (multiply-adds; parameters where those are not known), for a training step is about three of them; else 8
    views, or as many as there are epochs when those are fewer. Always live: mixup and cutmix, losses on layers, and the
    teacher `ema`."""
    top_k: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Of each row keep the k largest outputs and, as one number, the sum of all others (the log-sum-exp of their
    logits at the temperature of the losses). kd, reverse-kl and jsd then compare k + 1 probabilities, exactly; nothing
    is renormalised. For many classes. None: keep all."""
    reason: Annotated[str, Field(max_length=1000)] | None = None
    """Why `views` is what it is, with the two costs where they were compared. The service writes it into the resolved
    spec and the report, over whatever stands here."""


def output_bytes(rows: int, classes: int, views: int, top_k: int | None) -> int:
    """Bytes of the kept outputs: float32 logits, or the k + 1 numbers of top-k and the k classes they belong to."""
    if top_k is None:
        return views * rows * classes * 4
    return views * rows * ((top_k + 1) * 4 + top_k * id_bytes(classes))


def id_bytes(classes: int) -> int:
    """Bytes of one class number."""
    return 2 if classes <= 2**15 else 4


def most_views(rows: int, classes: int, top_k: int | None, limit: int) -> int:
    """The largest number of views whose outputs take at most `limit` bytes."""
    return min(MOST_VIEWS, limit // max(1, output_bytes(rows, classes, 1, top_k)))


def most_top_k(rows: int, classes: int, views: int, limit: int) -> int:
    """The largest top_k below the number of classes with which `views` fit into `limit` bytes; 0: none."""
    each = limit // max(1, views * rows)
    return max(0, min(classes - 1, math.floor((each - 4) / (4 + id_bytes(classes)))))
