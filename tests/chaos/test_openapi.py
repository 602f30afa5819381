"""Requests made out of the OpenAPI document of a running flow, good and bad ones, and answers held against it: `make fuzz`.

`FUZZ_SEED` repeats a run, `FUZZ_NUMBER` sets how many requests at least (5,000).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded
from hypothesis.errors import Unsatisfiable
from schemathesis import APIOperation, Case, GenerationMode, Response
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.failures import Failure, FailureGroup

from streamflow import Flow

from .papers import Papers

SEED = int(os.environ.get("FUZZ_SEED", secrets.randbelow(1 << 31)))
NUMBER = int(os.environ.get("FUZZ_NUMBER", 5000))
HANG_S = 0.1
TRIES = 5
WORKING = ("status_code_conformance", "content_type_conformance", "response_headers_conformance")
TYPED = ("response_schema_conformance",)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def flow() -> Iterator[Flow]:
    with Flow(protocol="http", host="127.0.0.1").config_gateway(expose_graphql_endpoint=True).add(uses=Papers) as serving:
        yield serving


@dataclass
class Tally:
    """What was seen. `late` are requests above `HANG_S` at first, `hung` those that stayed so; `faults` by operation and kind."""

    session: requests.Session = field(default_factory=requests.Session)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    faults: dict[tuple[str, str], str] = field(default_factory=dict)
    times_s: list[float] = field(default_factory=list)
    late: int = 0
    hung: list[str] = field(default_factory=list)

    def send(self, case: Case) -> None:
        response = self._timed(case)
        self.statuses[case.operation.label, response.status_code] += 1
        if response.status_code >= 500 and not _excused(case, response):
            self._fault(case, f"status {response.status_code}", response.text)
        names = WORKING if _passes_by(case) else WORKING + TYPED
        try:
            case.validate_response(response, checks=[check for check in CHECKS.get_all() if check.__name__ in names])
        except FailureGroup as group:
            for failure in group.exceptions:
                self._fault(case, f"{type(failure).__name__}: {failure}", response.text)
        except Failure as failure:
            self._fault(case, f"{type(failure).__name__}: {failure}", response.text)

    def _timed(self, case: Case) -> Response:
        """The answer. A machine that others use may be late once; a request that is slow by itself is slow each time."""
        tries_s = []
        for _ in range(TRIES):
            started = time.monotonic()
            response = case.call(session=self.session, timeout=20)
            tries_s.append(time.monotonic() - started)
            if tries_s[-1] <= HANG_S:
                break
        self.times_s.append(tries_s[0])
        self.late += tries_s[0] > HANG_S
        if min(tries_s) > HANG_S:
            self.hung.append(f"{case.operation.label} {min(tries_s):.2f} s: {case.as_curl_command()[:500]}")
        return response

    def _fault(self, case: Case, kind: str, text: str) -> None:
        self.faults.setdefault((case.operation.label, kind[:300]), f"{case.as_curl_command()[:500]} -> {text[:500]}")


def _excused(case: Case, response: Response) -> bool:
    """The executor raised, or the client's own deadline had passed."""
    raised = response.status_code == 500 and "EXECUTOR_ERROR" in response.text
    return raised or response.status_code == 504 and bool(_header(case, "timeout"))


def _passes_by(case: Case) -> bool:
    """Whether executors may be left out: documents then come back as they were sent."""
    return bool(_header(case, "targetExecutor"))


def _header(case: Case, name: str) -> Any:
    body = case.body if isinstance(case.body, dict) else {}
    header = body.get("header") if isinstance(body.get("header"), dict) else {}
    return header.get(name) or body.get(name)


def send_many(operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, number: int, tally: Tally) -> None:
    @seeded(SEED)
    @settings(max_examples=number, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(operation.as_strategy(generation_mode=mode))
    def send(case: Case) -> None:
        tally.send(case)

    with contextlib.suppress(Unsatisfiable):  # nothing about it can be wrong
        send()


def test_answers_are_as_the_openapi_document_says(flow: Flow, say: Callable[[str], None]) -> None:
    load_all_checks()
    document = schemathesis.openapi.from_url(f"http://127.0.0.1:{flow.port}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    endpoints = [each for each in operations if "Endpoints" in each.definition.raw["tags"]]
    tally = Tally()
    for operation in operations:
        number = NUMBER // (2 * len(endpoints)) + 1 if operation in endpoints else 20
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            send_many(operation, mode, number, tally)
    times_s = sorted(tally.times_s)
    say(
        f"{len(times_s)} requests to {len(operations)} operations, median {times_s[len(times_s) // 2] * 1000:.1f} ms, "
        f"longest {times_s[-1] * 1000:.0f} ms, {tally.late} above {HANG_S * 1000:.0f} ms at first, {len(tally.hung)} each time; "
        f"statuses {_by_status(tally)} (seed {SEED})"
    )
    assert len(times_s) >= NUMBER
    assert not tally.faults, "\n".join(f"{operation}: {kind}\n    {example}" for (operation, kind), example in tally.faults.items())
    assert not tally.hung, tally.hung[:3]
    unanswered = {each.label for each in endpoints} - {label for label, status in tally.statuses if status == 200}
    assert unanswered <= {"POST /fails", "POST /post"}, "no request was a good one"  # the latter asks for endpoints that are not there


def _by_status(tally: Tally) -> dict[int, int]:
    found: Counter[int] = Counter()
    for (_, status), number in tally.statuses.items():
        found[status] += number
    return dict(sorted(found.items()))
