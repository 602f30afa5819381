"""SIGHUP to `streamflow flow`: every worker and the gateway are replaced while requests go on, and no request fails."""

from __future__ import annotations

import asyncio
import os
import pty
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
from docarray import DocList
from docarray.documents import TextDoc
from fastapi import FastAPI

from streamflow import Client, Executor, Flow, requests
from streamflow.broker.server import free_port
from streamflow.gateways.fastapi import FastAPIBaseGateway

from .meanwhile import Meanwhile
from .programs import ROOT, Programs, addresses_of, environment_of, flow_file, step, until


def test_all_processes_are_replaced_and_no_request_fails(programs: Programs, tmp_path: Path) -> None:
    file = flow_file(tmp_path, "rolling", [step("a", replicas=2), step("b", pause_s=0.05)])
    program, addresses = programs.flow(file)
    before = {process.pid for process in program.family() if "nats-server" not in process.name()}
    with Meanwhile(addresses["http"], on="/run") as requests:
        until(lambda: len(requests.answers) > 20)
        for number in (1, 2):
            program.send(signal.SIGHUP)
            program.wait_for(rf"(?s)(everything new is ready.*){{{number}}}")
        seen = len(requests.answers)
        until(lambda: len(requests.answers) > seen + 20)

    assert requests.failures == []
    after = {process.pid for process in program.family() if "nats-server" not in process.name()}
    assert before & after == {program.pid} and len(after) == len(before)


class Pid(FastAPIBaseGateway):
    """Answers with the number of its process."""

    @property
    def app(self) -> FastAPI:
        app = FastAPI()

        @app.post("/post")
        async def answer() -> dict[str, Any]:
            return {"data": [{"text": str(os.getpid())}]}

        return app


class Nothing(Executor):
    @requests
    def pass_on(self, docs: DocList[TextDoc], **kwargs: Any) -> None: ...


def test_a_fastapi_gateway_of_ones_own_hands_its_port_over() -> None:
    with Flow(host="127.0.0.1", protocol="http").config_gateway(uses=Pid).add(uses=Nothing) as flow:
        (supervisor,) = (each for each in psutil.Process().children() if "streamflow.supervise" in each.cmdline())
        with Meanwhile(f"127.0.0.1:{flow.port}") as requests:
            for number in (1, 2, 3):
                until(lambda count=number: len(requests.texts()) == count)
                supervisor.send_signal(signal.SIGHUP)
            until(lambda: len(requests.texts()) == 4)
    assert requests.failures == []


async def test_grpc_clients_do_not_notice(programs: Programs, tmp_path: Path) -> None:
    file = flow_file(tmp_path, "rolling-grpc", [step("a", pause_s=0.01)], ("grpc",))
    program, addresses = programs.flow(file)
    host, _, port = addresses["grpc"].partition(":")
    client = Client(host, int(port), "grpc", asyncio=True)
    over = asyncio.Event()

    async def run() -> int:
        count = 0
        while not over.is_set():
            async for docs in client.post("/run", DocList[TextDoc]([TextDoc(text="x")]), return_type=DocList[TextDoc]):
                count += len(docs)
        return count

    running = [asyncio.create_task(run()) for _ in range(4)]
    for number in (1, 2):
        program.send(signal.SIGHUP)
        await asyncio.to_thread(program.wait_for, rf"(?s)(everything new is ready.*){{{number}}}")
    over.set()

    counts = await asyncio.wait_for(asyncio.gather(*running), 20)
    assert all(count > 10 for count in counts), counts


def test_connections_wait_for_the_next_gateway_when_one_was_killed(programs: Programs, tmp_path: Path) -> None:
    """The supervisor holds the port: nobody is refused while the gateway starts again."""
    program, addresses = programs.flow(flow_file(tmp_path, "killed-gateway", [step("a")]))
    for _ in range(3):
        gateway = next(
            process
            for process in program.family()
            if any(address.status == "LISTEN" for address in process.net_connections("tcp"))
            and process.pid != program.pid
            and "nats" not in process.name()
        )
        gateway.kill()
        gateway.wait(10)
        with Meanwhile(addresses["http"], on="/run", clients=2) as requests:
            until(lambda stream=requests: len(stream.answers) > 5)
        assert requests.failures == []


def test_a_terminal_that_is_closed_ends_the_flow(tmp_path: Path) -> None:
    """The same signal, but it says that nobody is there any more."""
    file = flow_file(tmp_path, "hung-up", [step("a")])
    log = tmp_path / "log"
    pid, terminal = pty.fork()
    if pid == 0:
        output = os.open(log, os.O_CREAT | os.O_WRONLY)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.chdir(ROOT)
        os.execve(
            sys.executable, [sys.executable, "-m", "streamflow", "flow", "--uses", str(file)], environment_of({"TMPDIR": str(tmp_path)})
        )
    until(lambda: "ready to serve" in log.read_text() if log.exists() else False, 30)

    os.close(terminal)

    limit = time.monotonic() + 20
    ended, status = os.waitpid(pid, os.WNOHANG)
    while not ended:
        assert time.monotonic() < limit, log.read_text()
        time.sleep(0.02)
        ended, status = os.waitpid(pid, os.WNOHANG)
    assert os.waitstatus_to_exitcode(status) == 0, log.read_text()
    assert "restarting" not in log.read_text()


def test_a_taken_port_is_still_an_error(programs: Programs, tmp_path: Path) -> None:
    port = free_port()
    first = programs.streamflow("flow", "--uses", str(flow_file(tmp_path, "first", [step("a")])), "--port", str(port))
    addresses_of(first)
    for protocol in ("http", "grpc"):
        second = programs.streamflow("flow", "--uses", str(flow_file(tmp_path, "second", [step("a")], (protocol,))), "--port", str(port))
        assert second.wait() != 0
        assert f"cannot listen on 127.0.0.1:{port}" in second.output
