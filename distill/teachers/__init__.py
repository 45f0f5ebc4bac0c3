"""Uploaded teachers: from a stranger's file to a frozen network that takes a dataset's raw rows."""

from distill.teachers.label_map import leads_nowhere_else, map_logits, mapped
from distill.teachers.load import config_of, load

__all__ = ["config_of", "leads_nowhere_else", "load", "map_logits", "mapped"]
