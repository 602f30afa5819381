"""Memory of a client is bounded, however long the input is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.client.backend import Asked
from tests.unit.client.servers import Running, protocol

ROOT = Path(__file__).resolve().parents[3]
DOCUMENTS, TEXT_BYTES = 200_000, 1_000  # 200 MB in all
GROWTH_MIB = 20
PROGRAM = f"""
import re, sys
from pathlib import Path
from docarray.documents import TextDoc
from streamflow.client import Client

answered = 0

def documents(count):
    for number in range(count):
        yield TextDoc(text=f"{{number:0{TEXT_BYTES}}}")

def seen(response):
    global answered
    answered += len(response.docs)

def send(client, count):
    client.post("/echo", documents(count), on_done=seen, request_size=100)
    # Not getrusage: its maximum outlives an exec, so it may be that of the test process.
    return int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

with Client("127.0.0.1", int(sys.argv[1]), sys.argv[2]) as client:
    before = send(client, {DOCUMENTS // 50})
    print(before, send(client, {DOCUMENTS}), answered)
"""


class _Forgetful(list[Asked]):
    def append(self, asked: Asked) -> None: ...


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.feature("CL-11", "CL-24", "ER-09")
def test_two_hundred_thousand_documents_take_no_more_memory_than_four_thousand(kind: str, server: Running) -> None:
    server.backend.asked = _Forgetful()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(server.port), protocol(kind)],
        capture_output=True,
        text=True,
        timeout=280,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    assert done.returncode == 0, done.stderr
    before_mib, after_mib, answered = map(float, done.stdout.split())
    assert answered == DOCUMENTS + DOCUMENTS // 50
    print(f"{kind}: peak {before_mib:.0f} MiB after {DOCUMENTS // 50:,} documents, {after_mib:.0f} MiB after {DOCUMENTS:,} more")
    assert after_mib - before_mib < GROWTH_MIB
