"""Where outputs are kept for other jobs. The engine asks a shelf; how it is shared is the shelf's business."""

from pathlib import Path
from typing import Protocol

from stillhouse.spec.events import OutputsMade, OutputsPlace, OutputsWanted

Place = OutputsPlace


class Shelf(Protocol):
    """Answers one trainer."""

    def ask(self, wanted: OutputsWanted) -> OutputsPlace:
        """Where they are, or where to make them. May wait for somebody who is making them."""

    def made(self, what: OutputsMade) -> None:
        """They are where they were to be made, or could not be kept there."""


class FolderShelf:
    """A folder of one's own, such as beside a notebook. Nothing in it is ever removed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ask(self, wanted: OutputsWanted) -> OutputsPlace:
        """The file is there or it is not."""
        path = self._folder / f"{wanted.key}.safetensors"
        return OutputsPlace(path=str(path), ready=path.is_file() and not wanted.damaged)

    def made(self, what: OutputsMade) -> None:
        """It is where it belongs."""
