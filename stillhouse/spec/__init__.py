"""The contract: what goes over the wire, what it means, and what may be said. pydantic only."""

from stillhouse.spec.base import AUTO, Auto, Contract, View, concrete
from stillhouse.spec.facts import SPLITS, DataFacts, DataReport, StoredDataset
from stillhouse.spec.job import JobSpec
from stillhouse.spec.limits import Limits
from stillhouse.spec.losses import LOSSES
from stillhouse.spec.resolve import resolve
from stillhouse.spec.states import JobStatus, Phase
from stillhouse.spec.students import STUDENTS

__all__ = [
    "AUTO",
    "LOSSES",
    "SPLITS",
    "STUDENTS",
    "Auto",
    "Contract",
    "DataFacts",
    "DataReport",
    "JobSpec",
    "JobStatus",
    "Limits",
    "Phase",
    "StoredDataset",
    "View",
    "concrete",
    "resolve",
]
