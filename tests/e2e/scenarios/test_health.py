"""Readiness, dry run, health and status: from Python, from the command line, by gRPC and by HTTP, before and after."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty
from grpc_health.v1 import health_pb2

from streamflow import Client, Deployment, Flow
from streamflow.broker.server import free_port
from streamflow.gateway.proto import shallow_pb2 as pb
from tests.e2e.programs import Program, Programs, environment_of, until

from .served import port_of


@dataclass(frozen=True)
class Pieces:
    """A broker, a gateway and one worker, each a process that nobody restarts."""

    grpc: str
    http: str
    broker: str
    worker: Program


@pytest.fixture(scope="module")
def pieces(module_programs: Programs) -> Pieces:
    ports = [str(free_port()) for _ in range(3)]
    broker, file = f"nats://127.0.0.1:{ports[2]}", module_programs.folder / "flow.yml"
    file.write_text("jtype: Flow\nexecutors: [{name: one}]\n")
    module_programs.streamflow("broker", "--port", ports[2])
    module_programs.streamflow(
        "gateway", "--uses", str(file), "--flow", "health", "--broker", broker, "--host", "127.0.0.1",
        "--protocol", "grpc", "--port", ports[0], "--protocol", "http", "--port", ports[1],
    ).wait_for("ready")  # fmt: skip
    worker = module_programs.worker(broker, "health", "one")
    worker.wait_for("ready")
    return Pieces(f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}", broker, worker)


def get(pieces: Pieces, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://{pieces.http}{path}", timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def call(pieces: Pieces, method: str, answer: Any, request: Any = None) -> Any:
    with grpc.insecure_channel(pieces.grpc) as channel:
        asked = channel.unary_unary(method, response_deserializer=answer.FromString)
        return asked((request or Empty()).SerializeToString(), timeout=20)


def dry_run(pieces: Pieces) -> Any:
    return call(pieces, "/jina.JinaGatewayDryRunRPC/dry_run", pb.Status)


def pings(*commands: tuple[str, ...]) -> list[tuple[int, str]]:
    """Exit code and output of `streamflow ping`, all at the same time."""
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "streamflow", "ping", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment_of({}),
        )
        for words in commands
    ]
    outputs = [process.communicate(timeout=60)[0] for process in started]
    return [(process.returncode, output) for process, output in zip(started, outputs, strict=True)]


@pytest.mark.feature("CL-16", "DP-08", "FL-09", "HC-03")
def test_t34_ready_inside_of_the_context_and_not_outside() -> None:
    dep, flow = Deployment(), Flow().add()
    client = Client(port=port_of(flow))
    assert not dep.is_deployment_ready() and not flow.is_flow_ready() and not client.is_flow_ready()
    with dep, flow:
        assert dep.is_deployment_ready() and flow.is_flow_ready()
        until(client.is_flow_ready, 5, "a client that asked too early to see it")  # it pauses between attempts to connect
        with Client(port=port_of(dep)) as other:
            assert other.is_deployment_ready()
    assert not dep.is_deployment_ready() and not flow.is_flow_ready() and not client.is_flow_ready()
    client.close()


@pytest.mark.feature("HC-04", "CI-05")
def test_t35_ping_tells_and_exits_by_what_it_finds(pieces: Pieces) -> None:
    targets = [("flow", f"grpc://{pieces.grpc}"), ("gateway", f"http://{pieces.http}"), ("deployment", pieces.grpc)]
    executor, nobody = f"{pieces.broker}/health/one", f"grpc://127.0.0.1:{free_port()}"
    *good, bad = pings(*targets, ("executor", executor), ("flow", nobody))
    for code, output in good:
        assert code == 0, output
        assert output.count(" round takes ") == 3 and "avg. latency: " in output
        assert "readiness check succeeded 3 times!!!" in output
    code, output = bad
    assert code == 1, output
    assert "not responding, retry (1/3) in 1s" in output and "message lost 100% (3/3)" in output


@pytest.mark.feature("GW-27", "HC-01", "HC-02")
def test_t37_health_by_grpc_and_by_http(pieces: Pieces) -> None:
    health = call(pieces, "/grpc.health.v1.Health/Check", health_pb2.HealthCheckResponse, health_pb2.HealthCheckRequest())
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert get(pieces, "/") == (200, {})


@pytest.mark.feature("GW-29")
def test_t38_status_has_two_maps(pieces: Pieces) -> None:
    info = call(pieces, "/jina.JinaInfoRPC/_status", pb.Info)
    status, answer = get(pieces, "/status")
    assert status == 200 and set(answer) == {"jina", "envs"}
    for versions, variables in ((dict(info.jina), dict(info.envs)), (answer["jina"], answer["envs"])):
        assert {"python", "platform", "protobuf"} <= set(versions) and "(unset)" in variables.values()


@pytest.mark.feature("GW-28", "ER-03", "ER-08", "CL-16")
def test_t36_a_dry_run_before_and_after_the_executor_is_killed(pieces: Pieces) -> None:
    """The last test of this file: nobody starts the worker again."""
    assert dry_run(pieces) == pb.Status()
    assert get(pieces, "/dry_run") == (200, {"code": 0, "description": "", "exception": None})
    pieces.worker.kill()
    until(lambda: dry_run(pieces).code == 1, 15, "the dry run to fail")
    failure = dry_run(pieces)
    assert "one" in failure.description and failure.exception.name == "InternalNetworkError"
    _, answer = get(pieces, "/dry_run")
    assert answer["code"] == 1 and "one" in answer["description"] and answer["exception"]["name"] == "InternalNetworkError"
    with Client(host=f"grpc://{pieces.grpc}") as client:
        assert not client.is_flow_ready()
