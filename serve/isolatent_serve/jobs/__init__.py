"""Batch jobs: posteriors of any number of files, written as parts into a folder, resumed where they were interrupted.

Run a prepared folder with: python -m isolatent_serve.jobs FOLDER
"""

from isolatent_serve.jobs.folder import Counts, JobFolder
from isolatent_serve.jobs.merge import finish
from isolatent_serve.jobs.plan import create, prepare
from isolatent_serve.jobs.shard import Encoder, run_shard
from isolatent_serve.jobs.spec import JobError, JobLimits, JobSpec

__all__ = [
    "Counts",
    "Encoder",
    "JobError",
    "JobFolder",
    "JobLimits",
    "JobSpec",
    "create",
    "finish",
    "prepare",
    "run_shard",
]
