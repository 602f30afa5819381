"""Whatever an executor returns or raises, its client is answered and the next request is served."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from .checker import nothing_left
from .executors.strange import KINDS
from .programs import ROOT, Programs, addresses_of, broker_of, flow_file

pytestmark = pytest.mark.feature("EX-15")

FILE = Path(__file__).with_name("executors") / "strange.py"
ANSWER_S = 5.0


@pytest.fixture(scope="module")
def served(module_programs: Programs) -> tuple[str, str]:
    """URLs of a flow of one worker, and of its broker."""
    executors = [{"name": "strange", "uses": {"jtype": "Strange", "py_modules": [str(FILE)]}}]
    file = flow_file(module_programs.folder, "strange", executors)
    program = module_programs.streamflow("flow", "--uses", str(file), PYTHONPATH=f"{ROOT / 'src'}:{ROOT}", STREAMFLOW_ACK_WAIT_S="1")
    return f"http://{addresses_of(program)['http']}", broker_of(program)


CASES = [(kind, endpoint) for kind in KINDS for endpoint in ("/sync", "/async")]


@pytest.mark.parametrize(("kind", "endpoint"), CASES)
async def test_the_client_is_answered_and_the_next_one_served(served: tuple[str, str], kind: str, endpoint: str) -> None:
    url, broker_url = served
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session:
        async with session.post(url + endpoint, json={"data": [{"id": "d"}], "parameters": {"kind": kind}}) as response:
            answer = await response.json()
        assert response.status in (200, 413, 500), answer
        assert response.status == 200 or answer["detail"]
        async with session.post(url + endpoint, json={"data": [{"id": "d", "text": "next"}]}) as response:
            assert (await response.json())["data"][0]["text"] == "next"
    await nothing_left(broker_url, 5)
