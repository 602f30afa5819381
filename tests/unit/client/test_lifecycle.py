"""What is left behind: nothing. Programs run with warnings as errors, and their stderr must stay empty."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.client.servers import Running, protocol

ROOT = Path(__file__).resolve().parents[3]
HEAD = """
import asyncio, gc, sys, threading
from docarray import BaseDoc, DocList
from docarray.documents import TextDoc
from streamflow.client import Client

url = dict(host="127.0.0.1", port=int(sys.argv[1]), protocol=sys.argv[2])
docs = DocList[TextDoc]([TextDoc(text=str(number)) for number in range(20)])
"""
PROGRAMS = {
    "never closed": "print(len(Client(**url).post('/echo', docs, request_size=3)))",
    "collected, closed, and many in threads": """
client = Client(**url)
client.post('/echo', docs)
del client
gc.collect()
with Client(**url) as client:
    client.post('/echo', docs, request_size=3)
def work():
    Client(**url).post('/echo', docs, request_size=3)
threads = [threading.Thread(target=work) for _ in range(5)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(20)
""",
    "collected by the cycle collector": """
for _ in range(5):
    client = Client(**url)
    client.post('/echo', docs)
    client.itself = client
    del client
    gc.collect()
with Client(**url) as client:
    print(len(client.post('/echo', docs)))
""",
    "failed": """
try:
    Client(**url).post('/fail', [TextDoc(text='bad') for _ in range(9)], request_size=1)
except Exception as error:
    print(20)
""",
    "async, left early": """
async def main():
    async for found in Client(**url, asyncio=True).post('/echo', docs, request_size=1):
        return 20
print(asyncio.run(main()))
""",
    "async, never closed, twice": """
client = Client(**url, asyncio=True)
async def main():
    return sum([len(found) async for found in client.post('/echo', docs, request_size=3)])
asyncio.run(main())
print(asyncio.run(main()))
""",
    "both kinds": """
async def main():
    async with Client(**url, asyncio=True) as client:
        return sum([len(found) async for found in client.post('/echo', docs, request_size=3)])
Client(**url).post('/echo', docs)
print(asyncio.run(main()))
""",
    "stream left early": """
if url['protocol'] == 'websocket':
    print(20); sys.exit()
for doc in Client(**url).stream_doc('/talk', TextDoc(text='a b c')):
    print(20)
    break
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("kind", ["grpc", "http", "websocket"])
def test_a_program_ends_without_a_warning(name: str, kind: str, server: Running) -> None:
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", HEAD + PROGRAMS[name]]
    done = subprocess.run(
        [*command, str(server.port), protocol(kind)], capture_output=True, text=True, timeout=60, env={"PYTHONPATH": str(ROOT / "src")}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "20"


def test_a_forked_child_may_use_a_client_of_its_own(server: Running, kind: str) -> None:
    if kind in ("grpc", "jina"):
        pytest.skip("gRPC itself does not survive a fork of a process that used it")
    program = (
        HEAD
        + """
import os
Client(**url).post('/echo', docs)
child = os.fork()
if not child:
    print(len(Client(**url).post('/echo', docs)), flush=True)
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(server.port), kind],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(ROOT / "src")},
    )
    assert (done.returncode, done.stdout.strip()) == (0, "20"), done.stderr
