"""Checkpoints: a run that dies, wherever it is, goes on from the last one and ends with the same bits."""

from distill.checkpoints.folder import Checkpoints
from distill.checkpoints.journal import Journal, Stopped
from distill.checkpoints.parts import Unfit
from distill.checkpoints.prints import Prints

__all__ = ["Checkpoints", "Journal", "Prints", "Stopped", "Unfit"]
