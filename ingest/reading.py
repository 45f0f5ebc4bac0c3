"""What every reader hands on, whatever the upload looked like."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ingest.errors import BadRows
from ingest.rows import RowSpool
from stillhouse.spec.facts import Feature, Task


@dataclass(frozen=True)
class Reading:
    """The usable rows of an upload, and what was seen on the way."""

    task: Task
    rows: RowSpool
    """x [N, *shape], on disk."""
    labels: NDArray[np.int64]
    """[N], indices into `classes`; -1 for a training row kept without a label."""
    classes: tuple[str, ...]
    given: NDArray[np.uint8] | None
    """[N], index into `stillhouse.spec.SPLITS`; None when the upload has no splits."""
    rows_read: int
    bad: BadRows
    features: tuple[Feature, ...] = ()
    notes: list[str] = field(default_factory=list)
