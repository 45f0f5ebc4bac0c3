"""Uploaded teachers: what a caller says about a file, what is stored of it, and whether it fits a dataset.

pydantic only. The file itself is read by `distill.teachers`, in a process of its own.
"""

from stillhouse.spec.teachers.answering import answers_in, in_writing, map_of
from stillhouse.spec.teachers.config import (
    ExportedNet,
    ForeignConfig,
    HuggingFaceNet,
    Network,
    OnnxNet,
    StoredConfig,
    TimmNet,
    TorchvisionNet,
    weights_file,
)
from stillhouse.spec.teachers.fit import teacher_misfits
from stillhouse.spec.teachers.intake import CheckedTeacher, IntakeAnswer, IntakeRequest
from stillhouse.spec.teachers.label_map import LabelMap, StatedMap, map_labels
from stillhouse.spec.teachers.options import TeacherFormat, TeacherOptions
from stillhouse.spec.teachers.preprocessing import Preprocessing, StatedPreprocessing
from stillhouse.spec.teachers.query import TeacherQuery
from stillhouse.spec.teachers.words import network_in_words

__all__ = [
    "CheckedTeacher",
    "ExportedNet",
    "ForeignConfig",
    "HuggingFaceNet",
    "IntakeAnswer",
    "IntakeRequest",
    "LabelMap",
    "Network",
    "OnnxNet",
    "Preprocessing",
    "StatedMap",
    "StatedPreprocessing",
    "StoredConfig",
    "TeacherFormat",
    "TeacherOptions",
    "TeacherQuery",
    "TimmNet",
    "TorchvisionNet",
    "answers_in",
    "in_writing",
    "map_labels",
    "map_of",
    "network_in_words",
    "teacher_misfits",
    "weights_file",
]
