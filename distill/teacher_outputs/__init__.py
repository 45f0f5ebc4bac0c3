"""The teacher's outputs over the training data: worked out once, kept under what they depend on, read as they lie."""

from distill.teacher_outputs.kept import Kept
from distill.teacher_outputs.labelling import Wish, outputs_of
from distill.teacher_outputs.shelf import FolderShelf, Place, Shelf
from distill.teacher_outputs.voice import Voice

__all__ = ["FolderShelf", "Kept", "Place", "Shelf", "Voice", "Wish", "outputs_of"]
