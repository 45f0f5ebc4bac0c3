"""The engine: distils a student from a teacher. A plain torch library, usable from a notebook.

`run` does a whole job; `load` gives a finished student back as a torch module.
"""

from distill.checkpoints import Checkpoints, Stopped
from distill.hub import Hub
from distill.model import load
from distill.run import RunIO, run
from distill.teacher_outputs import FolderShelf

__all__ = ["Checkpoints", "FolderShelf", "Hub", "RunIO", "Stopped", "load", "run"]
