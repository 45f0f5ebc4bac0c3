"""The architectures a student (or a teacher trained here) can have: their dials, their size, what they fit.

The size is a closed form, so that the API can refuse a network beyond the limits without torch; a test holds
each formula against the module the engine builds.
"""

from stillhouse.spec.students.architecture import STUDENTS, Architecture
from stillhouse.spec.students.budget import Budget, WithinBudget, in_words
from stillhouse.spec.students.cnn import Cnn
from stillhouse.spec.students.mlp import Mlp
from stillhouse.spec.students.mobilenet import Mobilenet
from stillhouse.spec.students.resnet import Resnet
from stillhouse.spec.students.shrink import Shrink
from stillhouse.spec.students.student import Student, architecture_of, candidates_of
from stillhouse.spec.students.timm import Timm

__all__ = [
    "STUDENTS",
    "Architecture",
    "Budget",
    "Cnn",
    "Mlp",
    "Mobilenet",
    "Resnet",
    "Shrink",
    "Student",
    "Timm",
    "WithinBudget",
    "architecture_of",
    "candidates_of",
    "in_words",
]
