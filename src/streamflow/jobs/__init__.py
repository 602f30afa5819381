"""Jobs as a client sees them: `client.submit()` and `client.replay()` give a `Job`, the handle on what runs without anybody waiting."""

from __future__ import annotations

import streamflow.client  # noqa: F401  # first: the client is made of what is here, and comes whole or not at all

from .handle import AsyncJob, Job
from .status import JobResponse, JobStatus, JobTimeout, State

__all__ = ["AsyncJob", "Job", "JobResponse", "JobStatus", "JobTimeout", "State"]
