"""Which files belong to an executor, what counts as a change, and which processes a change concerns."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamflow import Deployment, Flow
from streamflow.broker.errors import FlowError
from streamflow.broker.flow import Graph, Node
from streamflow.broker.server import free_port
from streamflow.config.spec import ExecutorSpec, FlowSpec, GatewaySpec, ListenAt, Origin
from streamflow.members import Place, Role
from streamflow.origin import load
from streamflow.plan import make_plan, read_again
from streamflow.ports import HeldPorts
from streamflow.reload import Changes, Sources, sources_of
from streamflow.sealing import seal


class Mine:
    """A class of this file."""


def touch(file: Path, text: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("uses", "modules", "configs", "folders"),
    [
        ("exec.yml", (), ["exec.yml"], ["."]),
        ("sub", (), ["sub/config.yml"], ["sub"]),
        ({"jtype": "X", "py_modules": ["sub/x.py"]}, (), [], ["sub"]),
        ({"jtype": "X", "py_modules": "x.py"}, (), [], ["."]),
        ("X", ("sub/x.py", "x.py"), [], ["sub", "."]),
        ("x.X", (), [], ["."]),
        ("sub.x.X", (), [], ["sub"]),
        ("X", (), [], []),
        (None, (), [], []),
        ("jtype: X\npy_modules: x.py", (), [], []),
    ],
)
def test_where_an_executor_comes_from(tmp_path: Path, uses: Any, modules: tuple[str, ...], configs: list[str], folders: list[str]) -> None:
    for name in ("exec.yml", "x.py", "sub/x.py", "sub/config.yml"):
        touch(tmp_path / name)

    found = sources_of(ExecutorSpec("e", uses, py_modules=modules, folder=tmp_path))

    assert found.configs == tuple(str(tmp_path / config) for config in configs)
    assert set(found.folders) == {str(tmp_path / folder) for folder in folders}


def test_a_class_is_watched_in_its_own_folder() -> None:
    assert sources_of(ExecutorSpec("e", Mine)).folders == (str(Path(__file__).parent),)


def test_python_files_below_count_and_environments_do_not(tmp_path: Path) -> None:
    mine = [touch(tmp_path / name) for name in ("a.py", "deep/er/b.py")]
    for name in ("notes.txt", ".hidden/x.py", "__pycache__/a.py", "venv/pyvenv.cfg", "venv/lib/x.py", "node_modules/x.py"):
        touch(tmp_path / name)

    assert set(Sources("e", folders=(str(tmp_path),)).stamps()) == set(map(str, mine))


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Path, Changes]]:
    touch(tmp_path / "a.py", "1")
    touch(tmp_path / "e.yml", "1")
    yield tmp_path, Changes((Sources("e", (str(tmp_path / "e.yml"),), (str(tmp_path),)),))


def test_a_change_counts_once_it_is_over(watched: tuple[Path, Changes]) -> None:
    folder, changes = watched
    assert changes.look() == []
    touch(folder / "a.py", "22")
    assert changes.look() == []  # it may go on
    touch(folder / "b.py", "3")
    assert changes.look() == []
    (change,) = changes.look()
    assert change.files == (str(folder / "a.py"), str(folder / "b.py")) and change.config is None
    assert changes.look() == []


@pytest.mark.parametrize("how", ["replaced", "removed", "same size", "config"])
def test_every_way_of_changing_a_file_is_seen(watched: tuple[Path, Changes], how: str) -> None:
    folder, changes = watched
    file = folder / ("e.yml" if how == "config" else "a.py")
    if how == "removed":
        file.unlink()
    elif how == "replaced":
        stat = file.stat()
        shutil.copy2(file, folder / "new")
        (folder / "new").rename(file)
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    else:
        touch(file, "2")
        os.utime(file, ns=(1, 1))

    found = changes.look() + changes.look()

    assert [each.files for each in found] == [(str(file),)]
    assert found[0].config == (str(file) if how == "config" else None)


@given(st.lists(st.sampled_from(["write", "look"]), max_size=12))
def test_no_change_is_lost_and_none_is_told_twice(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    file = touch(tmp_path_factory.mktemp("w") / "a.py", "0")
    changes = Changes((Sources("e", folders=(str(file.parent),)),))
    written = told = 0
    for step in [*steps, "look", "look"]:
        if step == "write":
            written += 1
            touch(file, "x" * written)
        else:
            told += len(changes.look())

    assert (told > 0) == (written > 0) and told <= written
    assert changes.look() == []


# the flow file


def write(file: Path, text: str) -> str:
    file.write_text(text)
    return str(file)


def test_the_file_is_read_again_as_it_was_the_first_time(tmp_path: Path) -> None:
    path = write(tmp_path / "f.yml", "jtype: Flow\nwith: {name: '${{ CONTEXT.who }}', protocol: http}\nexecutors: [{name: a}]")
    flow = Flow.load_config(path, context={"who": "shop"}, workspace="/w").config_gateway(title="T")
    spec = flow.spec()
    write(tmp_path / "f.yml", "jtype: Flow\nwith: {name: '${{ CONTEXT.who }}', protocol: http}\nexecutors: [{name: a}, {name: b}]")

    again = read_again(seal(spec))

    assert [each.name for each in again.executors] == ["a", "b"]
    assert (again.graph["flow"], again.gateway.title, again.executors[1].workspace) == ("shop", "T", "/w")
    assert again.gateway.listen == spec.gateway.listen


def test_a_flow_that_was_changed_after_it_was_read_is_not_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "f.yml", "jtype: Flow\nwith: {reload: true}\nexecutors: [{name: a}]")
    sealed = seal(Flow.load_config(path).add(name="b").spec())

    assert sealed.origin is None and not [each for each in sealed.sources if not each.part_of]
    assert "changes of that file are not followed" in caplog.text


def test_a_broken_file_is_told_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "f.yml", "jtype: Flow\nexecutors:\n- {name: a, replicas: many}")

    with pytest.raises(FlowError, match=r"f.yml:3: executors\[0\].replicas"):
        load(Origin("Flow", path), {})


def test_a_port_that_the_file_now_gives_wins(tmp_path: Path) -> None:
    given_port = free_port()
    path = write(tmp_path / "f.yml", f"jtype: Deployment\nwith: {{uses: X, protocol: [http, grpc], port: [0, {given_port}]}}")
    kept_port = free_port()

    assert load(Origin("Deployment", path), {"http": kept_port}).gateway.listen == (("http", kept_port), ("grpc", given_port))


def test_reload_of_a_deployment_watches_executor_and_file(tmp_path: Path) -> None:
    touch(tmp_path / "x.py")
    path = write(tmp_path / "d.yml", "jtype: Deployment\nwith: {uses: {jtype: X, py_modules: x.py}, reload: true, name: d}")
    sealed = seal(Deployment.load_config(path).spec())

    assert [(each.part_of, each.configs, each.folders) for each in sealed.sources] == [
        ("", (path,), ()),
        ("executor", (), (str(tmp_path),)),
    ] or [each.part_of for each in sealed.sources] == ["", "d"]


# who is replaced


def places(*executors: ExecutorSpec, **nodes: Node) -> dict[str, Place]:
    graph = Graph("shop", tuple(nodes.get(each.name, Node(each.name)) for each in executors))
    plan = make_plan(seal(FlowSpec(graph, executors, GatewaySpec((ListenAt("http", 8080),)))), "nats://127.0.0.1:1")
    return {place.child.name: place for place in plan.places if place.role is not Role.TASK}


def test_only_what_changed_gets_another_fingerprint() -> None:
    a, b = ExecutorSpec("a", "m.A"), ExecutorSpec("b", "m.B")
    before = places(a, b)

    grown = places(replace(a, replicas=2), b, a=Node("a", replicas=2))
    assert {name for name, place in before.items() if grown[name].fingerprint != place.fingerprint} == set()
    assert set(grown) - set(before) == {"a/rep-1"}
    changed = places(a, replace(b, uses_with={"x": 1}))
    assert {name for name, place in before.items() if changed[name].fingerprint != place.fingerprint} == {"b/rep-0"}
    tried = places(a, b, a=Node("a", retries=2, retry_on=("E",)))
    assert {name for name, place in before.items() if tried[name].fingerprint != place.fingerprint} == {"a/rep-0"}


# ports


def test_held_ports_are_kept_from_others_and_given_back() -> None:
    ports = HeldPorts()
    http, grpc = ("127.0.0.1", free_port()), ("127.0.0.1", free_port())
    held = ports.hold([http], [grpc])

    assert held == ports.hold([http], [grpc]) and set(held) == {f"{host}:{port}" for host, port in (http, grpc)}
    for address in (http, grpc):
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(address)
    assert HeldPorts().hold([], [grpc]) == {}
    ports.close()
    for address in (http, grpc):
        with socket.socket() as other:
            other.bind(address)


def test_a_port_where_somebody_listens_is_not_held() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = HeldPorts()
        assert ports.hold([taken.getsockname()], []) == ports.hold([], [taken.getsockname()]) == {}
        ports.close()
