"""The oldest nats-server that streamflow works with: an own one is looked at before it starts, any other one at connect."""

from __future__ import annotations

import re

from .errors import RuntimeFailToStart

MINIMUM_VERSION = (2, 14, 3)  # security floor: the advisories of 2026 are fixed from here on


def version_of(text: str) -> tuple[int, ...] | None:
    """The three numbers of a version in `text`: (2, 15, 1)."""
    found = re.search(r"v?(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else None


def require_version(text: str, who: str) -> str:
    """The version in `text`, e.g. "2.15.1". Raises `RuntimeFailToStart`, naming `who` has it, below the floor."""
    found = version_of(text)
    if found is None or found < MINIMUM_VERSION:
        floor = ".".join(map(str, MINIMUM_VERSION))
        raise RuntimeFailToStart(
            f'{who} is {text.strip() or "of unknown version"}: streamflow needs {floor} or newer (pip install "streamflow[broker]")'
        )
    return ".".join(map(str, found))
