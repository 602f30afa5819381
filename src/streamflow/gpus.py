"""`CUDA_VISIBLE_DEVICES: RR` (Jina's round robin): which graphics card a replica gets. Nothing of CUDA is loaded."""

from __future__ import annotations

import re
from pathlib import Path

from streamflow.broker.errors import FlowError

VARIABLE = "CUDA_VISIBLE_DEVICES"
_SLICE = re.compile(r"(-?\d*):(-?\d*)\Z")


def device_count() -> int:
    """Cards that the NVIDIA driver of this machine knows; 0 without one."""
    listed = Path("/proc/driver/nvidia/gpus")
    if listed.is_dir():
        return len(list(listed.iterdir()))
    return len([device for device in Path("/dev").glob("nvidia*") if device.name.removeprefix("nvidia").isdigit()])


def assign(value: str, index: int, count: int) -> str | None:
    """What the variable is for replica `index` when the user wrote `value` and there are `count` devices; None = leave it unset.

    `RR` = device `index` modulo `count`; `RR0:2` = the same over that Python slice of devices; `RR1,3` or `RRGPU-uuid1,GPU-uuid2` = over
    that list. Everything else stays as it is. Raises `FlowError` for a slice without devices.
    """
    if not value.startswith("RR"):
        return value
    chosen = value[2:].strip()
    devices = _devices(chosen, count)
    if devices:
        return devices[index % len(devices)]
    if chosen:
        raise FlowError(f"{VARIABLE}={value}: no such device, there are {count}")
    return None


def _devices(chosen: str, count: int) -> list[str]:
    every = [str(number) for number in range(count)]
    if not chosen:
        return every
    if (found := _SLICE.match(chosen)) is not None:
        start, stop = (int(text) if text else None for text in found.groups())
        return every[start:stop]
    return [device.strip() for device in chosen.split(",") if device.strip()]
