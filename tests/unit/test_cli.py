"""The command line from outside: what it prints, how it ends, what it costs."""

from __future__ import annotations

import http.server
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import grpc
import pytest
from click.testing import CliRunner

from streamflow._version import __version__
from streamflow.broker import exit_codes
from streamflow.broker.server import EmbeddedBroker, free_port
from streamflow.cli.app import COMMANDS, cli, main

LIMIT_S = 60


def streamflow(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **environment}
    command = [sys.executable, "-m", "streamflow", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=env, check=False, timeout=LIMIT_S)


def cpu_s(*arguments: str) -> float:
    """CPU seconds of the command line, the least of three: what it costs on a busy machine too."""
    found = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert streamflow(*arguments).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(found)


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_cost_less_than_150_ms(argument: str) -> None:
    assert cpu_s(argument) < 0.15


def test_help_lists_every_command() -> None:
    done = streamflow("--help")

    assert all(f"\n  {name} " in done.stdout and lazy.short_help in done.stdout for name, lazy in COMMANDS.items())


def test_help_documents_every_exit_code() -> None:
    text = CliRunner().invoke(cli, ["--help"]).output

    assert all(f"{code}" in text and meaning in text for code, meaning in exit_codes.TEXTS.items())


@pytest.mark.feature("EV-01")
@pytest.mark.parametrize("command", COMMANDS)
def test_every_flag_is_an_environment_variable_too(command: str) -> None:
    loaded = COMMANDS[command].load()
    flags = [each for each in loaded.params if each.param_type_name == "option" and each.name != "help"]

    assert flags or isinstance(loaded, click.Group)
    assert all(str(each.envvar).startswith("STREAMFLOW_") for each in flags)


@pytest.mark.parametrize(
    ("arguments", "too_heavy"),
    [
        (["--help"], {"docarray", "numpy", "fastapi", "grpc", "nats", "pydantic", "rich"}),
        (["--version"], {"docarray", "numpy", "fastapi", "grpc", "nats", "pydantic", "rich"}),
        (["hello", "--help"], {"docarray", "numpy", "sklearn"}),
        (["flow", "--help"], {"docarray", "numpy", "fastapi", "grpc", "nats"}),
        (["worker", "--help"], {"docarray", "numpy", "fastapi", "grpc", "nats"}),
        (["gateway", "--help"], {"docarray", "numpy", "fastapi"}),
    ],
)
def test_help_imports_nothing_heavy(arguments: list[str], too_heavy: set[str]) -> None:
    code = f"import sys; from streamflow.cli import main; main({arguments}); print(sorted({too_heavy} & set(sys.modules)))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True, timeout=LIMIT_S)

    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_is_the_one_it_is_listed_as() -> None:
    for name, lazy in COMMANDS.items():
        assert lazy.load().name == name


@pytest.mark.feature("CI-11")
def test_completion_imports_no_command() -> None:
    at_exit = "atexit.register(lambda: print('streamflow.cli.flow' in sys.modules))"
    code = f"import atexit, sys; {at_exit}; from streamflow.cli import main; main()"
    variables = {"_STREAMFLOW_COMPLETE": "bash_complete", "COMP_WORDS": "streamflow fl", "COMP_CWORD": "1"}
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), **variables}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True, timeout=LIMIT_S)

    assert done.stdout.splitlines() == ["plain,flow", "False"]


def test_version_is_printed() -> None:
    assert CliRunner().invoke(cli, ["--version"]).output == f"streamflow, version {__version__}\n"


@pytest.mark.feature("CI-08")
def test_full_version_lists_components_and_variables_with_secrets_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMFLOW_BROKER_URL", "nats://user:hunter2@10.0.0.1:4222")
    monkeypatch.setenv("STREAMFLOW_API_TOKEN", "hunter2")
    result = CliRunner().invoke(cli, ["-vf"])
    lines = dict(line.removeprefix("- ").split(maxsplit=1) for line in result.output.splitlines())

    assert result.exit_code == 0
    assert lines["streamflow"] == __version__
    assert lines["nats-py"][0].isdigit()
    assert lines["STREAMFLOW_BROKER_CREDENTIALS"] == "(unset)"
    assert lines["STREAMFLOW_BROKER_URL"] == "nats://***@10.0.0.1:4222"
    assert "hunter2" not in result.output


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["flwo"], "No such command 'flwo'. Did you mean 'flow'?"),
        (["nothing-like-it"], "There are flow, deployment,"),
        (["hello", "digit"], "No such command 'digit'. Did you mean 'digits'?"),
        (["export", "schemata"], "No such command 'schemata'. Did you mean 'schema'?"),
        (["flow", "--use", "x"], "--uses"),
        (["worker", "--uses", "x", "--replika", "1"], "--replica"),
        (["flow"], "Missing option '--uses'"),
        (["worker", "--uses", "x", "--uses-with", "{"], "not JSON"),
        (["worker", "--uses", "x", "--uses-with", "[]"], "a JSON object is needed"),
        (["worker", "--uses", "x", "--env", "A"], "KEY=VALUE is needed"),
        (["ping", "http://a", "http://b"], "ping takes one of flow, gateway, executor, deployment and a URL"),
        (["gateway", "--protocol", "http", "--protocol", "grpc", "--port", "1"], "1 --port for 2 --protocol (http, grpc)"),
    ],
)
def test_wrong_usage_says_what_is_meant_and_ends_with_2(arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == exit_codes.USAGE

    assert hint in capsys.readouterr().err


@pytest.mark.feature("CI-01", "CI-02", "CI-03", "CI-04")
def test_jinas_names_of_commands_work() -> None:
    result = CliRunner().invoke(cli, ["executor", "--help"])

    assert result.exit_code == 0
    assert "Run one replica" in result.output


def test_a_flow_file_that_is_not_there_ends_with_2_and_without_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["flow", "--uses", str(tmp_path / "none.yml")]) == exit_codes.USAGE

    assert capsys.readouterr().err == f"Error: {tmp_path}/none.yml: cannot be read: No such file or directory\n"


def test_a_wrong_key_in_a_flow_file_is_told_with_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "flow.yml").write_text("jtype: Flow\nexecutors:\n  - name: a\n    replica: 2\n")

    assert main(["flow", "--uses", str(tmp_path / "flow.yml")]) == exit_codes.USAGE

    assert "flow.yml:4: executors[0].replica: unknown key; did you mean 'replicas'?" in capsys.readouterr().err


def test_verbose_shows_the_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["-v", "flow", "--uses", str(tmp_path / "none.yml")])

    assert "Traceback (most recent call last)" in capsys.readouterr().err


class Answers(http.server.BaseHTTPRequestHandler):
    """A gateway that is ready when `ready` says so."""

    ready = [True]

    def do_GET(self) -> None:
        ready = self.ready[0] if len(self.ready) == 1 else self.ready.pop(0)
        body = json.dumps({"code": 0 if ready else 1, "description": "" if ready else "no replica of encoder", "exception": None}).encode()
        self.send_response(200 if ready else 503)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def gateway() -> Iterator[str]:
    Answers.ready = [True]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamflow.cli.ping.PAUSE_S", 0.0)


@pytest.mark.feature("CI-05", "HC-04")
@pytest.mark.parametrize("target", [[], ["flow"], ["gateway"], ["deployment"]])
def test_ping_of_a_ready_gateway(gateway: str, target: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ping", *target, gateway]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [f"ping {gateway} at 0 round...", lines[1]]
    assert lines[1].startswith(f"ping {gateway} at 0 round takes 0 seconds (0.0")
    assert [line for line in lines if line.endswith("at 2 round...")]
    assert lines[-2].startswith("avg. latency: ") and lines[-2].endswith(" ms")
    assert lines[-1] == "readiness check succeeded 3 times!!!"


def test_ping_of_a_gateway_that_is_not_ready(gateway: str, capsys: pytest.CaptureFixture[str]) -> None:
    Answers.ready = [False]

    assert main(["ping", "flow", gateway]) == exit_codes.FAILED

    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "not responding, retry (1/3) in 1s: HTTP 503: no replica of encoder"
    assert lines[-1] == "message lost 100% (3/3)"


@pytest.mark.feature("CI-05")
def test_ping_needs_as_many_answers_as_it_is_told(gateway: str) -> None:
    Answers.ready = [False, True, True]
    assert main(["ping", gateway, "--min-successful-attempts", "2"]) == 0

    Answers.ready = [False, True, True]
    assert main(["ping", gateway, "--min-successful-attempts", "3"]) == exit_codes.FAILED


@pytest.mark.feature("CI-05", "HC-04")
@pytest.mark.parametrize("scheme", ["http", "grpc", "ws", "nats"])
def test_ping_of_nobody_fails(scheme: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ping", f"{scheme}://127.0.0.1:{free_port()}", "--attempts", "1", "--timeout", "500"]) == exit_codes.FAILED

    assert "message lost 100% (1/1)" in capsys.readouterr().err


def test_ping_of_a_silent_port_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for scheme in ("http", "grpc", "nats"):
            assert (
                main(["ping", f"{scheme}://127.0.0.1:{silent.getsockname()[1]}", "--attempts", "1", "--timeout", "200"])
                == exit_codes.FAILED
            )


def test_ping_of_another_protocols_port_says_which_it_is(gateway: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ping", gateway.replace("http://", "grpc://"), "--attempts", "1"]) == exit_codes.FAILED
    assert "an HTTP port takes http:// or ws://" in capsys.readouterr().err

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    assert main(["ping", f"http://127.0.0.1:{port}", "--attempts", "1"]) == exit_codes.FAILED
    server.stop(None).wait(10)
    assert "a gRPC port takes grpc://" in capsys.readouterr().err


def test_ping_of_a_broker(broker: EmbeddedBroker, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ping", broker.url, "--attempts", "1"]) == 0
    assert main(["ping", "executor", broker.url, "--attempts", "1"]) == exit_codes.USAGE

    assert "/<flow>/<executor>" in capsys.readouterr().err


def test_ping_of_a_flow_that_nobody_deployed(broker: EmbeddedBroker, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ping", "executor", f"{broker.url}/nowhere/encoder", "--attempts", "1"]) == exit_codes.FAILED

    assert "not responding" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["ftp://a:1", "http://", "grpc://a:0", "http://a:99999"])
def test_ping_refuses_what_is_no_address(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ping", url]) == exit_codes.USAGE

    assert f"{url!r} is no address" in capsys.readouterr().err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_the_broker_command_serves_until_it_is_told_to_stop(tmp_path: Path, number: int, code: int) -> None:
    port = free_port()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-u", "-m", "streamflow", "broker", "--port", str(port), "--store", str(tmp_path / "data")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"Broker is ready: nats://127.0.0.1:{port}\n"
        assert main(["ping", f"nats://127.0.0.1:{port}", "--attempts", "1"]) == 0
        process.send_signal(number)
        assert process.wait(LIMIT_S) == code

    assert main(["ping", f"nats://127.0.0.1:{port}", "--attempts", "1"]) == exit_codes.FAILED
    assert (tmp_path / "data").is_dir()


def test_a_broker_that_dies_ends_its_command_with_1() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-u", "-m", "streamflow", "broker", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)
        assert process.wait(LIMIT_S) == exit_codes.FAILED
        assert "the nats-server ended by itself" in process.stderr.read()


def test_a_worker_that_finds_no_broker_ends_with_4(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from streamflow.workers.executor import Executor\nclass Mine(Executor): ...\n")
    url = f"nats://127.0.0.1:{free_port()}"
    flags = ["--uses", "Mine", "--py-modules", str(tmp_path / "mine.py"), "--broker", url]
    done = streamflow("worker", *flags, STREAMFLOW_CONNECT_WAIT_S="0.2")

    assert done.returncode == exit_codes.NO_BROKER
    assert done.stderr.splitlines()[-1].startswith(f"Error: no broker at {url}")


@pytest.mark.feature("CI-01", "ER-01")
def test_a_worker_whose_executor_fails_to_load_ends_with_1(tmp_path: Path) -> None:
    lines = [
        "from streamflow.workers.executor import Executor",
        "class Mine(Executor):",
        "    def __init__(self, **kwargs): raise ValueError('no weights')",
    ]
    (tmp_path / "mine.py").write_text("\n".join(lines))
    done = streamflow("worker", "--uses", "Mine", "--py-modules", str(tmp_path / "mine.py"))

    assert done.returncode == exit_codes.FAILED
    assert "no weights" in done.stderr
    assert "Traceback" not in done.stderr


NOBODY = "nats://127.0.0.1:1"  # port 1 (tcpmux): nothing listens there


def loading(folder: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """A worker whose executor's file is `lines`."""
    (folder / "mine.py").write_text("\n".join(["import os, signal, time", *lines]))
    return streamflow("worker", "--uses", "Mine", "--py-modules", str(folder / "mine.py"), "--broker", NOBODY)


@pytest.mark.parametrize(("number", "code"), [("SIGINT", exit_codes.INTERRUPTED), ("SIGTERM", exit_codes.OK)])
def test_a_worker_that_loads_for_long_ends_at_once_when_told(tmp_path: Path, number: str, code: int) -> None:
    done = loading(tmp_path, f"os.kill(os.getpid(), signal.{number})", "time.sleep(20)", "raise RuntimeError('deaf')")

    assert done.returncode == code, done.stderr
    assert "Error" not in done.stderr


def test_ctrl_c_while_modules_are_imported_is_the_end_whatever_they_make_of_it(tmp_path: Path) -> None:
    """Libraries turn what interrupts their import into an ImportError of their own, as numpy does."""
    raising = "    raise ImportError('the core cannot be imported') from error"
    done = loading(tmp_path, "try:", "    os.kill(os.getpid(), signal.SIGINT)", "except BaseException as error:", raising)

    assert done.returncode == exit_codes.INTERRUPTED, done.stderr
    assert "Error" not in done.stderr
