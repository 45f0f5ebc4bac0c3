"""Losses: one per file, filed under the kinds of `stillhouse.spec.LOSSES`, and their weighted sum."""

# Imported for their registration.
from distill.losses import crd, fitnet, review, vid  # noqa: F401
from distill.losses.attention_transfer import attention_transfer
from distill.losses.cc import cc
from distill.losses.ce import ce
from distill.losses.dist import dist
from distill.losses.dkd import dkd
from distill.losses.jsd import jsd
from distill.losses.kd import kd
from distill.losses.logits import logit_cosine, logit_mse
from distill.losses.nst import nst
from distill.losses.objective import Objective, needs_teacher
from distill.losses.pkt import pkt
from distill.losses.registry import LOSSES, Batch, Context
from distill.losses.reverse_kl import reverse_kl
from distill.losses.rkd import rkd
from distill.losses.similarity import similarity
from distill.losses.targets import Targets

__all__ = [
    "LOSSES",
    "Batch",
    "Context",
    "Objective",
    "Targets",
    "attention_transfer",
    "cc",
    "ce",
    "dist",
    "dkd",
    "jsd",
    "kd",
    "logit_cosine",
    "logit_mse",
    "needs_teacher",
    "nst",
    "pkt",
    "reverse_kl",
    "rkd",
    "similarity",
]
