"""What can be deleted and, for some days, be had back."""

from datetime import datetime

from sqlalchemy.orm import Mapped


class Trashable:
    """Columns of jobs, datasets and models. Written by `models.trash` and `models.purge` alone."""

    deleted_at: Mapped[datetime | None]
    """When it was put into the trash; None: it is not there."""
    purge_at: Mapped[datetime | None]
    """Not to be removed for good before."""
    purging_at: Mapped[datetime | None]
    """Set before the first of its files is removed: from then on nobody sees it any more, and it cannot come back."""
