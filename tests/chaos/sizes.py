"""How much each long test does. `make chaos` runs the size of every merge, `make chaos-night` (CHAOS_SIZE=night) a longer one.

A single figure is set by its name: `CHAOS_P1_REQUESTS=100000 pytest tests/chaos/test_kills.py -k p1`.
"""

from __future__ import annotations

import os
import secrets

NIGHT = os.environ.get("CHAOS_SIZE") == "night"
SEED = int(os.environ.get("CHAOS_SEED", secrets.randbelow(1 << 31)))
LIMIT_S = 6 * 3600 if NIGHT else 900  # of one test


def size(name: str, gate: int, night: int) -> int:
    return int(os.environ.get(f"CHAOS_{name}", night if NIGHT else gate))
