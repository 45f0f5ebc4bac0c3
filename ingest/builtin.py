"""Data that comes with the service."""

import numpy as np

from ingest.errors import BadRows
from ingest.reading import Reading
from ingest.rows import RowSpool, Scratch
from stillhouse.spec.limits import Limits
from stillhouse.spec.upload import IngestOptions


def read_digits(options: IngestOptions, limits: Limits, scratch: Scratch) -> Reading:
    """1,797 handwritten digits, uint8 [N, 1, 8, 8] with values 0..16, from scikit-learn (UCI, Alpaydin and Kaynak)."""
    from sklearn.datasets import load_digits  # takes a second, which no upload should wait for

    images, labels = load_digits(return_X_y=True)
    rows = RowSpool(scratch, (1, 8, 8), np.uint8, limits)
    rows.append(images.reshape(-1, 1, 8, 8).astype(np.uint8))
    return Reading(
        task="image-classification",
        rows=rows,
        labels=labels.astype(np.int64),
        classes=tuple(str(digit) for digit in range(10)),
        given=None,
        rows_read=rows.count,
        bad=BadRows(options.bad_rows),
    )
