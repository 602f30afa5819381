"""The README's commands and programs, as they stand there; only ports are exchanged for free ones."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
from itertools import takewhile

import pytest

from streamflow.broker.server import free_port

from .programs import ROOT, Program, Programs, environment_of, until

README = (ROOT / "README.md").read_text(encoding="utf-8")
SERVERS = {"broker": "Broker is ready", "gateway": r"(?m)^ready", "worker": r"(?m)^ready", "flow": "ready to serve"}


def blocks(language: str, *words: str) -> list[str]:
    """The fenced blocks of `language` that hold all `words`."""
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    return [block for block in found if all(word in block for word in words)]


def one(language: str, *words: str) -> str:
    found = blocks(language, *words)
    assert len(found) == 1, f"{len(found)} {language} blocks with {words}"
    return found[0]


class Ports:
    """The README's ports, each exchanged for the same free one everywhere."""

    def __init__(self) -> None:
        self.chosen: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        return re.sub(r"(?<=[ :=])(8080|4222)\b", lambda match: self.chosen.setdefault(match[0], str(free_port())), text)


def commands(block: str) -> list[list[str]]:
    """The command lines of a block, without comments."""
    return [words for line in block.splitlines() if (words := shlex.split(line, comments=True))]


def command(words: list[str]) -> list[str]:
    """`words` with this Python in the place of `streamflow` and `python`."""
    own = {"streamflow": [sys.executable, "-m", "streamflow"], "python": [sys.executable]}
    return [*own.get(words[0], words[:1]), *words[1:]]


def run_in_root(words: list[str]) -> str:
    """Standard output of a command that ends by itself, run in the repository's folder."""
    done = subprocess.run(command(words), capture_output=True, text=True, timeout=60, cwd=ROOT, env=environment_of({}), check=False)
    assert done.returncode == 0, f"{words}: {done.stdout}\n{done.stderr}"
    return done.stdout


def start_in_root(programs: Programs, words: list[str]) -> Program:
    """A server of the README, ready."""
    program = programs.run(words[1], *command([words[0], *(absolute(word) for word in words[1:])]))
    program.wait_for(SERVERS[words[1]])
    return program


def absolute(word: str) -> str:
    return str(ROOT / word) if (ROOT / word).is_file() else word


def test_every_python_block_is_python() -> None:
    for block in blocks("python"):
        compile(block, "README.md", "exec")


def test_every_file_and_target_named_is_there() -> None:
    prose = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
    named = re.findall(r"`((?:examples|compose|load|docs|tests)/[\w./-]*)`", prose) + re.findall(r"\]\(((?!http)[^)#]+)\)", prose)
    assert named and all((ROOT / name).exists() for name in named), [name for name in named if not (ROOT / name).exists()]
    targets = set(re.findall(r"`?make ([a-z-]+)\b", README)) - {"it"}
    known = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets and targets <= known, targets - known


def test_the_flow_of_ones_own_and_the_client(programs: Programs) -> None:
    ports = Ports()
    script = programs.folder / "script.py"
    script.write_text(ports(one("python", "__main__", "Flow(")))
    program = programs.run("script", sys.executable, str(script))
    program.wait_for("HELLO")
    curl = next(words for words in commands(ports(one("bash", "curl", "/shout"))) if words[0] == "curl")
    assert shutil.which("curl"), "curl is needed"
    until(lambda: '"text":"HI"' in run_in_root(curl), what="the curl line is answered")
    prelude = script.read_text().partition("if __name__")[0] + '\ndocs = DocList[Note]([Note(text="one")])\n'
    client = programs.folder / "client.py"
    client.write_text(prelude + ports(one("python", "Client(")))
    run_in_root(["python", str(client)])
    program.send(signal.SIGINT)
    program.wait()
    assert program.output.count("Traceback") <= 1


PIECES = ("streamflow broker", "streamflow gateway", "streamflow worker", "examples/client.py")


def test_everything_on_this_machine(programs: Programs) -> None:
    served = next(words for words in commands(one("bash", *PIECES)) if words[1] == "flow")
    port = str(free_port())
    start_in_root(programs, [*served, "--port", port])
    assert_counted(run_in_root(["python", "examples/client.py", f"http://127.0.0.1:{port}"]))


@pytest.mark.feature("CI-01", "CI-04", "QU-01")
def test_piece_by_piece(programs: Programs) -> None:
    ports = Ports()
    lines = [words for words in commands(ports(one("bash", *PIECES))) if words[1] != "flow"]
    *servers, client = lines
    for words in servers:
        start_in_root(programs, words)
    assert_counted(run_in_root([*client, f"http://127.0.0.1:{ports.chosen['8080']}"]))


def assert_counted(output: str) -> None:
    lines = output.splitlines()
    assert len(lines) == 20 and all("words, most of all" in line for line in lines), output


def test_the_command_line_has_what_the_readme_uses() -> None:
    for block in blocks("bash", "streamflow "):
        for words in commands(block):
            if words[0] == "streamflow" and words[1] != "flow":
                command = list(takewhile(lambda word: not word.startswith("-"), words))
                help_text = run_in_root([*command, "--help"])
                assert all(word in help_text for word in words if word.startswith("--")), words
