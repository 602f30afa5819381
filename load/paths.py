"""Where things lie: all derived from this checkout."""

from pathlib import Path

LOAD = Path(__file__).resolve().parent
ROOT = LOAD.parent
SOURCES = ROOT / "src"
RESULTS = LOAD / "results"
EXECUTORS = LOAD / "executors.py"
PEERS = ROOT / ".peers"
