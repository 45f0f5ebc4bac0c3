"""The Python client.

from stillhouse.client import Client

with Client() as client:
    job = client.jobs.wait(client.jobs.create({...}))
    client.jobs.download(job, "student/")
"""

from stillhouse.client.client import Client
from stillhouse.client.config import Config, config_path, find_config
from stillhouse.client.datasets import Datasets
from stillhouse.client.download import OnProgress
from stillhouse.client.jobs import JobLike, Jobs
from stillhouse.client.models import Models

__all__ = [
    "Client",
    "Config",
    "Datasets",
    "JobLike",
    "Jobs",
    "Models",
    "OnProgress",
    "config_path",
    "find_config",
]
