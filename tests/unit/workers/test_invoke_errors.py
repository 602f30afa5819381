"""What user code can raise, and how it becomes an answer."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest
from docarray import DocList

from streamflow.broker.envelope import MAX_HEADER_BYTES, Envelope, decode, encode
from streamflow.broker.errors import Code, ExecutorError
from streamflow.workers.executor import Executor, requests
from streamflow.workers.invoke import EndpointError, Invoker

from .calling import In, returning, run, texts


class Raises(Executor):
    @requests(on="/x")
    def foo(self, docs: DocList[In], **kwargs: Any) -> None:
        self.deeper(docs[0].text)

    @requests(on="/async")
    async def bar(self, docs: DocList[In], **kwargs: Any) -> None:
        self.deeper(docs[0].text)

    def deeper(self, text: str) -> None:
        if text == "chain":
            try:
                raise KeyError("inner")
            except KeyError as error:
                raise ValueError("outer") from error
        if text == "exit":
            sys.exit(3)
        raise NotImplementedError(*([text] if text else []))


@pytest.mark.feature("EX-15", "ER-02")
@pytest.mark.parametrize("endpoint", ["/x", "/async"])
def test_a_user_exception_carries_name_arguments_and_a_traceback_of_user_code(endpoint: str) -> None:
    invoker = Invoker(Raises())
    with pytest.raises(EndpointError) as raised:
        asyncio.run(invoker.acall(invoker.endpoints[endpoint], texts("no time for it")))
    status = raised.value.status
    assert (status.code, status.description) == (Code.EXECUTOR_ERROR, "NotImplementedError('no time for it')")
    assert (status.exception, status.args, status.executor) == ("NotImplementedError", ("no time for it",), "Raises")
    assert status.stacks[0] == "Traceback (most recent call last):\n"
    assert "in foo" in status.stacks[1] or "in bar" in status.stacks[1]
    assert "in deeper" in status.stacks[2] and status.stacks[-1] == "NotImplementedError: no time for it\n"
    assert "/invoke.py" not in "".join(status.stacks)
    assert isinstance(raised.value.__cause__, NotImplementedError) and not raised.value.exits


@pytest.mark.feature("ER-02")
def test_descriptions_are_like_jinas() -> None:
    with pytest.raises(ExecutorError) as raised:
        run(Raises, texts(""))
    assert raised.value.status.description == "NotImplementedError()" and raised.value.status.args == ()


def test_causes_are_shown() -> None:
    with pytest.raises(ExecutorError) as raised:
        run(Raises, texts("chain"))
    assert "KeyError: 'inner'" in "".join(raised.value.status.stacks)


def test_exit_in_user_code_is_an_answer_and_not_the_end_of_the_worker() -> None:
    with pytest.raises(ExecutorError) as raised:
        run(Raises, texts("exit"))
    assert raised.value.name == "SystemExit"


@pytest.mark.parametrize(
    ("names", "exits"),
    [
        (["NotImplementedError"], True),
        (["RuntimeError"], True),
        (["Exception"], True),
        (["builtins.RuntimeError"], True),
        (["ValueError", "Error"], False),
        ([], False),
    ],
)
def test_exit_on_exceptions_matches_the_class_and_its_bases(names: list[str], exits: bool) -> None:
    with pytest.raises(EndpointError) as raised:
        run(Raises, texts("x"), exit_on_exceptions=names)
    assert raised.value.exits is exits


class Unprintable(Exception):
    def __repr__(self) -> str:
        raise ValueError("no repr")


@pytest.mark.parametrize(
    "error", [ValueError("x" * 10**6), ValueError(*["é" * 10**5] * 100), ValueError("\udcff"), Unprintable("a"), RecursionError()]
)
def test_no_exception_is_too_odd_or_too_large_for_the_wire(error: Exception) -> None:
    def deep(docs: Any, depth: int = 300) -> None:
        if depth:
            deep(docs, depth - 1)
        raise error

    with pytest.raises(EndpointError) as raised:
        run(returning(deep), texts("a"))
    message = encode(Envelope("r", status=raised.value.status))
    assert len(message) < MAX_HEADER_BYTES and decode(message).status == raised.value.status
    assert raised.value.name == type(error).__name__ and raised.value.status.stacks


def test_a_long_traceback_keeps_its_end() -> None:
    source = "\n".join(f"def f{n}(): return f{n + 1}()" for n in range(900)) + "\ndef f900(): raise ValueError('end')"
    names: dict[str, Any] = {}
    exec(compile(source, "generated.py", "exec"), names)
    with pytest.raises(EndpointError) as raised:
        run(returning(lambda docs: names["f0"]()), texts("a"))
    stacks = raised.value.status.stacks
    assert "entries left out" in stacks[0] and stacks[-1] == "ValueError: end\n"
