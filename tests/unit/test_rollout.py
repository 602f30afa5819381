"""A restart of processes that serve, by a real supervisor: the new one is ready before the old one is asked to leave."""

from __future__ import annotations

import os
import signal

import psutil

from .test_supervisor import GATEWAY, Flow, alive, flow

__all__ = ["flow"]


def restart(flow: Flow) -> None:
    assert flow.runtime is not None
    os.kill(flow.runtime.pid, signal.SIGHUP)


def started(flow: Flow, name: str) -> int:
    return len(flow.lines(name=name, what="started"))


def story(flow: Flow) -> list[tuple[str, str]]:
    return [(line["name"], line["what"]) for line in flow.lines()]


def test_workers_come_first_one_after_the_other_and_gateways_last(flow: Flow) -> None:
    flow.start(GATEWAY, {"name": "a/rep-0"}, {"name": "a/rep-1"})
    before = flow.pids()

    restart(flow)

    flow.until(lambda: flow.lines(name="gateway", what="ended") != [])
    assert story(flow)[3:] == [
        line for name in ("a/rep-0", "a/rep-1", "gateway") for line in ((name, "started"), (name, "asked"), (name, "ended"))
    ]
    flow.until(lambda: not any(map(alive, before)))
    assert all(map(alive, flow.pids()[3:]))


def test_what_cannot_start_again_leaves_the_old_one_in_place(flow: Flow) -> None:
    flow.start({"name": "a", "only_once": True}, {"name": "b"})
    first = flow.lines(name="a")[0]["pid"]

    restart(flow)

    flow.until(lambda: started(flow, "a") == 2)
    flow.until(lambda: not alive(flow.lines(name="a", what="started")[1]["pid"]))
    assert alive(first) and started(flow, "b") == 1
    assert flow.lines(what="asked") == []


def test_one_that_shares_nothing_leaves_before_the_next_comes(flow: Flow) -> None:
    flow.start({"name": "a", "handover": False})

    restart(flow)

    flow.until(lambda: started(flow, "a") == 2)
    assert story(flow) == [("a", "started"), ("a", "asked"), ("a", "ended"), ("a", "started")]


def test_one_that_shares_nothing_and_cannot_start_is_tried_again(flow: Flow) -> None:
    flow.start({"name": "a", "handover": False, "only_once": True})

    restart(flow)

    flow.until(lambda: started(flow, "a") >= 4)


def test_a_successor_that_is_late_is_given_up(flow: Flow) -> None:
    flow.start({"name": "a", "ready_s": 1.0, "late_again": True})

    restart(flow)

    flow.until(lambda: started(flow, "a") == 2)
    flow.until(lambda: not alive(flow.lines(name="a", what="started")[1]["pid"]))
    assert alive(flow.lines(name="a")[0]["pid"]) and flow.lines(what="asked") == []


def test_a_stop_in_the_middle_of_a_restart_ends_everybody(flow: Flow) -> None:
    runtime = flow.start({"name": "a", "drain_s": 1.0}, {"name": "b"})
    restart(flow)
    flow.until(lambda: flow.lines(name="a", what="asked") != [])

    runtime.stop()

    assert len(flow.lines(name="a", what="ended")) == 2
    assert not any(alive(pid) for pid in flow.pids())


def test_one_that_dies_while_its_successor_loads_is_replaced(flow: Flow) -> None:
    flow.start({"name": "a", "loads_s": 0.5})
    restart(flow)
    flow.until(lambda: started(flow, "a") == 2)

    psutil.Process(flow.lines(name="a")[0]["pid"]).kill()

    second = flow.lines(name="a", what="started")[1]["pid"]
    restart(flow)
    flow.until(lambda: started(flow, "a") == 3)
    flow.until(lambda: not alive(second))
