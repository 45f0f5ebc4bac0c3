"""Uploaded teachers: from a stranger's file to a frozen network that takes a dataset's raw rows."""

from distill.teachers.label_map import map_logits, mapped
from distill.teachers.load import load

__all__ = ["load", "map_logits", "mapped"]
