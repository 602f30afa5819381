"""The class and the decorators, without any document."""

from __future__ import annotations

import asyncio
import inspect
import logging
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from streamflow.broker.errors import FlowError
from streamflow.workers.decorators import Batching, marks_of
from streamflow.workers.executor import BaseExecutor, Executor, dynamic_batching, registered, requests, write


class Several(Executor):
    @requests(on=["/index", "/search"])
    def foo(self, **kwargs: Any) -> str:
        return "foo"

    @requests(on="other")
    async def bar(self, **kwargs: Any) -> str:
        return "bar"

    @requests
    def rest(self, **kwargs: Any) -> str:
        return "rest"

    def undecorated(self, **kwargs: Any) -> str:
        return "undecorated"


@pytest.mark.feature("EX-01", "EX-18")
def test_methods_are_bound_to_their_endpoints_and_stay_plain_methods() -> None:
    executor = Several()
    assert executor.bound == {"/index": "foo", "/search": "foo", "/other": "bar", "/default": "rest"}
    assert executor.foo() == executor.requests["/search"]() == "foo"
    assert asyncio.run(executor.bar()) == "bar"


@pytest.mark.feature("EX-22")
def test_uses_requests_rebinds_and_drops_the_old_endpoint() -> None:
    executor = Several(requests={"/new": "foo", "alias": "foo", "/u": "undecorated"})
    assert executor.bound == {"/new": "foo", "/alias": "foo", "/u": "undecorated", "/other": "bar", "/default": "rest"}
    assert executor.requests["/u"]() == "undecorated"


@pytest.mark.parametrize("method", ["fooo", "metas", 3, None])
def test_uses_requests_names_a_method_that_is_missing(method: Any) -> None:
    with pytest.raises(FlowError, match="uses_requests: '/x': Several has no method"):
        Several(requests={"/x": method})


def test_uses_requests_suggests_a_close_method() -> None:
    with pytest.raises(FlowError, match="did you mean 'undecorated'"):
        Several(requests={"/x": "undecorate"})


def test_endpoints_are_inherited_and_overriding_keeps_replaces_or_removes_them() -> None:
    class Base(Executor):
        @requests(on="/kept")
        def kept(self, **kwargs: Any) -> str:
            return "base"

        @requests(on="/old")
        def renamed(self, **kwargs: Any) -> None: ...

        @requests(on="/gone")
        def gone(self, **kwargs: Any) -> None: ...

        @requests(on="/taken")
        def loser(self, **kwargs: Any) -> None: ...

    class Derived(Base):
        gone = None  # type: ignore[assignment]

        def kept(self, **kwargs: Any) -> str:
            return "derived"

        @requests(on="/renamed")
        def renamed(self, **kwargs: Any) -> None: ...

        @requests(on="/taken")
        def winner(self, **kwargs: Any) -> None: ...

    assert Derived().bound == {"/kept": "kept", "/renamed": "renamed", "/taken": "winner"}
    assert Derived().requests["/kept"]() == "derived"
    assert Base().bound == {"/kept": "kept", "/old": "renamed", "/gone": "gone", "/taken": "loser"}


def test_a_mixin_that_is_no_executor_brings_endpoints() -> None:
    class Mixin:
        @requests(on="/status")
        def status(self, **kwargs: Any) -> dict[str, int]:
            return {"n": 1}

    class Mixed(Mixin, Executor):
        pass

    assert Mixed().bound == {"/status": "status"}


def test_two_methods_for_one_endpoint_are_refused_where_the_class_is_written() -> None:
    with pytest.raises(FlowError, match="Twice: endpoint '/x' is bound to both 'a' and 'b'"):

        class Twice(Executor):
            @requests(on="/x")
            def a(self, **kwargs: Any) -> None: ...

            @requests(on="/x")
            def b(self, **kwargs: Any) -> None: ...


def test_decorators_work_in_any_order_and_hand_back_the_same_function() -> None:
    def plain(self: Any, docs: list[int], **kwargs: Any) -> list[int]:
        """Doc."""
        return docs

    signature = inspect.signature(plain)
    marked = write(requests(on="/x")(dynamic_batching(preferred_batch_size=7, timeout=200)(plain)))

    class First(Executor):
        foo = marked

    class Second(Executor):
        @dynamic_batching(timeout=200, preferred_batch_size=7)
        @write
        @requests(on="/x")
        async def foo(self, docs: list[int], **kwargs: Any) -> list[int]:
            return docs

    assert marked is plain and inspect.signature(marked) == signature
    for cls in (First, Second):
        marks = marks_of(cls, "foo")
        assert (marks.on, marks.write, marks.batching) == (("/x",), True, Batching(7, 0.2))


def test_bare_and_empty_calls_of_the_decorators_mean_the_same() -> None:
    class Bare(Executor):
        @requests()
        @dynamic_batching
        def foo(self, **kwargs: Any) -> None: ...

    assert Bare().bound == {"/default": "foo"}
    assert marks_of(Bare, "foo").batching == Batching(preferred_batch_size=4, timeout_s=10.0)


def test_an_endpoint_given_by_position_is_explained() -> None:
    with pytest.raises(FlowError, match=r"@requests\(on='/index'\), got '/index'"):
        requests("/index")  # type: ignore[call-overload]


@pytest.mark.parametrize("endpoint", ["", " ", "//", 5])
def test_an_endpoint_is_text(endpoint: Any) -> None:
    with pytest.raises(FlowError, match="an endpoint is text"):
        requests(on=[endpoint])


@pytest.mark.parametrize(
    ("options", "wrong"),
    [
        ({"preferred_batch_size": 0}, "preferred_batch_size must be a whole number of at least 1, not 0"),
        ({"preferred_batch_size": True}, "preferred_batch_size must be"),
        ({"timeout": -1}, "timeout must be a number of milliseconds of at least 0, not -1"),
        ({"timeout": float("nan")}, "timeout must be"),
        ({"timeout": "10"}, "timeout must be"),
        ({"use_custom_metric": True}, "use_custom_metric needs custom_metric"),
    ],
)
def test_wrong_batching_options_are_named(options: dict[str, Any], wrong: str) -> None:
    with pytest.raises(FlowError, match=f"@dynamic_batching: {wrong}"):
        dynamic_batching(**options)
    with pytest.raises(FlowError, match=f"here: {wrong}"):
        Batching().updated(options, "here")


def test_an_unknown_batching_option_is_named() -> None:
    with pytest.raises(FlowError, match="here: unknown batching option 'size'"):
        Batching().updated({"size": 3}, "here")


@pytest.mark.feature("EX-01")
def test_attributes_have_values_in_a_plain_object() -> None:
    executor = Several()
    assert (executor.metas.name, executor.metas.description) == ("Several", "")
    assert (executor.runtime_args.name, executor.runtime_args.shard_id, executor.runtime_args.replicas) == ("Several", -1, 1)
    assert executor.tracer is None and executor.meter is None
    with executor as same:
        assert same is executor


@pytest.mark.feature("EX-19", "EX-20")
def test_metas_and_runtime_args_are_namespaces_with_what_was_given() -> None:
    executor = BaseExecutor(metas={"name": "different_name", "url": "x"}, runtime_args={"name": "exec0/shard-1/rep-0", "shard_id": 1})
    assert (executor.metas.name, executor.metas.url) == ("different_name", "x")
    assert (executor.runtime_args.name, executor.runtime_args.shard_id, executor.runtime_args.shards) == ("exec0/shard-1/rep-0", 1, 1)


@pytest.mark.feature("EX-17")
@pytest.mark.parametrize(
    ("runtime_args", "folder"),
    [
        ({}, "BaseExecutor"),
        ({"name": "exec0/rep-0"}, "exec0"),
        ({"name": "exec0/rep-2", "replica_id": 2}, "exec0/rep-2"),
        ({"name": "exec0/shard-1/rep-0", "shard_id": 1}, "exec0/1"),
        ({"name": ".."}, "_"),
        ({"name": "a b"}, "a_b"),
    ],
)
def test_each_instance_has_a_workspace_of_its_own(tmp_path: Path, runtime_args: dict[str, Any], folder: str) -> None:
    workspace = Path(BaseExecutor(workspace=tmp_path, runtime_args=runtime_args).workspace)
    assert workspace == tmp_path / folder and workspace.is_dir()


@pytest.mark.feature("EX-17")
def test_the_default_workspace_is_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert BaseExecutor().workspace == str(tmp_path / ".cache/streamflow/BaseExecutor")


def test_a_missing_super_call_is_explained() -> None:
    class Forgets(Executor):
        def __init__(self, **kwargs: Any) -> None:
            self.x = 1

    with pytest.raises(AttributeError, match=r"'metas': Forgets.__init__ must call super\(\).__init__\(\*\*kwargs\)"):
        print(Forgets().metas)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'$"):
        print(Forgets().nothing)  # type: ignore[attr-defined]


def test_arguments_that_nobody_takes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        BaseExecutor(modle="x")
    assert "BaseExecutor: nobody takes the constructor arguments modle" in caplog.text


def test_classes_are_registered_by_name() -> None:
    assert registered()["Several"] is Several and registered()["BaseExecutor"] is BaseExecutor


@pytest.mark.feature("EX-37")
def test_a_class_of_a_script_travels_by_cloudpickle() -> None:
    class Local(Executor):
        @dynamic_batching(preferred_batch_size=3)
        @requests(on="/x")
        def foo(self, **kwargs: Any) -> str:
            return "foo"

    # another process knows the module not at all; here it is enough that the class is rebuilt and not looked up
    copy: Any = cloudpickle.loads(cloudpickle.dumps(Local))
    assert copy.bindings == {"/x": "foo"} and copy().requests["/x"]() == "foo"
    assert marks_of(copy, "foo").batching == Batching(3)
