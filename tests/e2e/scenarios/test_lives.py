"""The life of an executor's process: made, warmed up, called, calling others, ended."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
from docarray import DocList

from streamflow import Client, Deployment, Executor, ExecutorError, Flow, requests
from streamflow.broker.server import free_port
from tests.e2e.programs import until

from .executors import Named, Text


class Lives(Executor):
    """Keeps a ledger in its workspace."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._write("made")

    def warmup(self) -> None:
        self._write("warm")

    def close(self) -> None:
        self._write("closed")

    @requests(on="/tell")
    def tell(self, docs: DocList[Text], **kwargs: Any) -> dict[str, Any]:
        self.logger.warning("telling")
        self._write("called")
        return {"pid": os.getpid(), "workspace": str(self.workspace), "endpoints": sorted(self.requests)}

    @requests(on="/die")
    def die(self, **kwargs: Any) -> None:
        raise ConnectionResetError("the card is gone")

    def _write(self, word: str) -> None:
        with (Path(self.workspace) / "ledger").open("a") as file:
            file.write(f"{os.getpid()} {word}\n")


class Calls(Executor):
    """Lets another service work."""

    def __init__(self, port: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.client = Client(port=port, asyncio=True)

    @requests
    async def call(self, docs: DocList[Text], **kwargs: Any) -> DocList[Text]:
        async for found in self.client.post("/", docs, return_type=DocList[Text]):
            docs = found
        return docs


def told(dep: Deployment) -> dict[str, Any]:
    found: dict[str, Any] = dep.post("/tell", return_responses=True)[0].results["lives/rep-0"]
    return found


@pytest.mark.feature("EX-03", "EX-15", "EX-16", "EX-17", "EX-18", "EX-35", "EX-39", "ER-08")
def test_an_executor_is_made_warmed_up_called_ended_by_its_exception_and_closed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Deployment(uses=Lives, name="lives", workspace=str(tmp_path), exit_on_exceptions=["OSError"]) as dep:
        first = told(dep)
        with pytest.raises(ExecutorError, match="the card is gone"):
            dep.post("/die")
        until(lambda: told(dep)["pid"] != first["pid"], what="another process")
        second = told(dep)
    assert first["endpoints"] == ["/die", "/tell"] and tmp_path in Path(first["workspace"]).parents
    assert first["workspace"] == second["workspace"]
    words: dict[str, list[str]] = {}
    for pid, word in re.findall(r"(\d+) (\w+)\n", (Path(first["workspace"]) / "ledger").read_text()):
        words.setdefault(pid, []).append(word)
    for pid in (first["pid"], second["pid"]):
        assert words[str(pid)][:3] == ["made", "warm", "called"] and words[str(pid)][-1] == "closed", words
    assert re.search(r"lives.*telling", capfd.readouterr().err)


@pytest.mark.feature("EX-33")
def test_an_executor_calls_another_service() -> None:
    with Deployment(uses=Named, name="far", port=(port := free_port())), Deployment(uses=Calls, uses_with={"port": port}) as near:
        assert near.post("/", Text(text="hi"), return_type=DocList[Text]).text == ["hi<far>"]


@pytest.mark.feature("FL-19")
async def test_a_flow_in_a_running_event_loop_posts_without_blocking_it() -> None:
    with Flow(asyncio=True).add(uses=Named, name="one") as flow:
        found = [docs.text async for docs in flow.post("/", [Text(), Text()], request_size=1, return_type=DocList[Text])]
    assert found == [["<one>"], ["<one>"]]
