"""Stand-ins for the services of a flow, run as real processes by the tests of the supervisor, and the factory that plans them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamflow.assignment import Plan, Prepared
from streamflow.broker.errors import FlowError
from streamflow.members import Place, Role
from streamflow.spawn import Child


class Sleeper:
    """A broker that is any process at all, with the interface of an embedded one."""

    url = "nats://127.0.0.1:1"

    def __init__(self, diary: str) -> None:
        self._diary = diary
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def launch(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"], start_new_session=True)
        write(self._diary, "broker", "started", pid=self.pid)

    def wait_ready(self) -> None: ...

    def has_lost_its_disk(self) -> bool:
        return False

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        self.kill()
        write(self._diary, "broker", "stopped")


def write(diary: str, name: str, what: str, **facts: Any) -> None:
    """One line in the file that the test reads."""
    line = json.dumps({"name": name, "what": what, "at": time.monotonic(), **facts}) + "\n"
    with Path(diary).open("a", encoding="utf-8") as file:
        file.write(line)


def serve(settings: dict[str, Any], *, report: Any, **extra: Any) -> int:
    """A service that becomes ready, waits for SIGTERM and says in the diary what happened to it."""
    name, diary = settings["name"], settings["diary"]
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    write(diary, name, "started", pid=os.getpid(), parent=os.getppid(), extra=sorted(extra), env=dict(os.environ))
    _misbehave(settings, report)
    addresses = {"addresses": settings["addresses"]} if "addresses" in settings else {}
    offer = {"endpoints": settings["endpoints"]} if "endpoints" in settings else {}
    report("ready", **addresses, **offer)
    signal.sigwait({signal.SIGTERM})
    write(diary, name, "asked")
    time.sleep(settings.get("drain_s", 0.0))
    if settings.get("deaf"):
        signal.pause()
    write(diary, name, "ended")
    return 0


def with_helper(settings: dict[str, Any], *, report: Any) -> int:
    """A service that starts a process of its own, as user code may."""
    helper = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
    write(settings["diary"], settings["name"] + "/helper", "started", pid=helper.pid)
    return serve(settings, report=report)


def _misbehave(settings: dict[str, Any], report: Any) -> None:
    report("loading", settings.get("says", ""))
    marker = Path(settings["diary"] + ".crashed")
    if settings.get("crash_after_first") and marker.exists():
        os._exit(7)
    marker.touch()
    again = _times_started(settings) > 1
    if again and settings.get("only_once"):
        raise ValueError("only once")
    time.sleep(settings.get("loads_s", 0.0))
    if settings.get("never_ready") or (again and settings.get("late_again")):
        signal.sigwait({signal.SIGTERM})
        os._exit(0)
    if "error" in settings:
        raise ValueError(settings["error"])
    if "exit" in settings:
        os._exit(settings["exit"])


def _times_started(settings: dict[str, Any]) -> int:
    lines = map(json.loads, Path(settings["diary"]).read_text().splitlines())
    return sum(line["name"] == settings["name"] and line["what"] == "started" for line in lines)


def once(settings: dict[str, Any], *, report: Any) -> int:
    """A task: done soon."""
    time.sleep(settings.get("takes_s", 0.0))
    write(settings["diary"], settings["name"], "done")
    return int(settings.get("exit", 0))


def refuse_no(endpoints: Mapping[str, list[dict[str, Any]]]) -> None:
    """A check that refuses executors which offer the endpoint "no"."""
    refused = [name for name, offered in endpoints.items() if any(each["name"] == "no" for each in offered)]
    if refused:
        raise FlowError(f"{', '.join(refused)} of {', '.join(endpoints)}: no")


def prepare(spec: dict[str, Any]) -> Prepared:
    """Plan what a test asks for: `{"diary": path, "children": [{"name":, "role":, ...}], "broker": bool}`."""
    places = tuple(_place(spec["diary"], child) for child in spec["children"])
    settle = _place(spec["diary"], spec["settle"]) if "settle" in spec else None
    plan = Plan(places, settle, check=refuse_no if spec.get("check") else None, grace_s=spec.get("grace_s", 10.0))
    broker = Sleeper(spec["diary"]) if spec.get("broker") else None
    return Prepared(lambda url: plan, broker, "nats://elsewhere:4222")


def _place(diary: str, child: dict[str, Any]) -> Place:
    role = Role(child.get("role", "worker"))
    target = child.get("target", f"{__name__}:{'once' if role in (Role.TASK, Role.SETTLE) else 'serve'}")
    running = Child(child["name"], target, {**child, "diary": diary}, sealed=child.get("sealed", b""), env=child.get("env", {}))
    return Place(running, role, child["name"].partition("/")[0], child.get("ready_s", 20.0), handover=child.get("handover", True))
