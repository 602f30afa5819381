"""The systems that can be measured, by name."""

from __future__ import annotations

from .base import Target
from .jina import Jina
from .mosec import Mosec
from .streamflow import Streamflow

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Streamflow(),
        Streamflow("streamflow-memory", storage="memory"),
        Streamflow("streamflow-journal", journal=True),
        Streamflow("streamflow-kept", keep_results=60),
        Jina(),
        Mosec(),
    )
}

__all__ = ["TARGETS", "Target"]
