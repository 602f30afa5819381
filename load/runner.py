"""Runs a profile: rounds of A B A B ..., each turn starts one target, checks it, loads it case by case and stops it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from .drivers import wrk
from .drivers.program import DriverFailed, run_program
from .drivers.ready import NeverReady
from .machine import CpuMeter, commit, machine
from .profiles import Case, Profile
from .results import Result, Sample, now
from .serving import Serving, serve
from .targets import TARGETS, Target

WARM_S = 1.0
IDLE_S = 5.0
BULK_LIMIT_S = 120.0
PYTHON_HTTP = "load.drivers.http_load"


class WrongAnswers(RuntimeError):
    """A target answered, but not with the right text to the right caller: its speed is of no interest."""


@dataclass(frozen=True, slots=True)
class Options:
    """`rounds` 0 = what the profile asks for; `targets` empty = all of the profile; `rate` 0 = the profile's cases."""

    rounds: int = 0
    seconds: float = 3.0
    targets: tuple[str, ...] = ()
    rate: float = 0.0
    say: Callable[[str], None] = field(default=lambda line: print(line, file=sys.stderr, flush=True))


def run_profile(profile: Profile, options: Options) -> Result:
    """Every figure of every round. A target that fails once is left out of the rounds that follow and named in `failures`."""
    profile = _with_rate(profile, options.rate)
    result = Result(profile.name, now(), commit(), machine(), {"seconds": options.seconds, "http_client": _http_client()})
    for number in range(options.rounds or profile.rounds):
        for target in _chosen(profile, options.targets):
            if target.name not in result.failures:
                _turn(target, profile, number, options, result)
    return result


def _with_rate(profile: Profile, rate: float) -> Profile:
    return replace(profile, cases=(Case(f"{rate:g}/s", 0, rate),)) if rate and profile.driver == "open" else profile


def _chosen(profile: Profile, wanted: tuple[str, ...]) -> list[Target]:
    """The profile's targets, or those of them that are wanted; `streamflow-*` variants stand in wherever streamflow does."""
    names = [name for name in wanted if name.split("-")[0] in profile.targets] if wanted else profile.targets
    return [TARGETS[name] for name in names]


def _turn(target: Target, profile: Profile, number: int, options: Options, result: Result) -> None:
    try:
        if problem := target.problem() or _client(profile, target).problem():
            raise NeverReady(problem)
        with serve(target, profile) as serving:
            _note_facts(serving, result)
            if number == 0:
                _check(serving)
            for case in profile.cases:
                figures = DRIVERS[profile.driver](serving, case, options.seconds)
                result.samples.append(Sample(profile.name, case.name, target.name, number, figures))
                options.say(_line(profile, case, target, number, figures))
    except (NeverReady, DriverFailed, WrongAnswers) as error:
        result.failures[target.name] = str(error)
        options.say(f"{profile.name}: {target.name} could not be measured: {error}")


def _line(profile: Profile, case: Case, target: Target, number: int, figures: Mapping[str, float]) -> str:
    shown = "  ".join(f"{name} {value:,.4g}" for name, value in figures.items())
    return f"{profile.name:15} round {number + 1}  {target.name:18} {case.name:12} {shown}"


def _note_facts(serving: Serving, result: Result) -> None:
    name = serving.target.name
    if name not in result.versions:
        result.versions[name] = dict(serving.target.versions())
        result.durability[name] = dict(serving.target.durability(serving.server))


def _client(profile: Profile, target: Target) -> Target:
    """Whose client a gRPC profile uses."""
    return TARGETS["jina"] if profile.client == "jina" else target


def _http_client() -> str:
    return "wrk" if wrk.available() else "python (wrk is not installed)"


def _check(serving: Serving) -> None:
    app = serving.profile.app
    if serving.profile.protocol == "grpc":
        found = _post_client(serving, "check", 60.0, "--suffix", app.suffix)
    else:
        found = run_program(_python_http("check", serving.url, "--suffix=" + app.suffix), {}, 60.0)
    if found["wrong"]:
        raise WrongAnswers(f"{found['wrong']:.0f} of {found['requests']:.0f} answers were wrong")


def _python_http(mode: str, url: str, *more: str) -> list[str]:
    return [sys.executable, "-m", PYTHON_HTTP, mode, url, *more]


def _post_client(serving: Serving, mode: str, seconds: float, *more: str) -> dict[str, float]:
    client = _client(serving.profile, serving.target)
    argv = [str(client.python()), "-m", "load.drivers.post_client", mode, serving.grpc, f"/{serving.profile.app.endpoint}", *more]
    return run_program(argv, client.client_env(), seconds)


def _metered(serving: Serving, load: Callable[[], dict[str, float]]) -> dict[str, float]:
    """The load's figures, with the server's CPU microseconds per request and the cores that others kept busy."""
    meter = CpuMeter(serving.server.processes()).start()
    figures = load()
    server, others = meter.stop()
    requests = max(1.0, figures.pop("requests_all", figures["requests"]))
    return figures | {"cpu_us": server / requests * 1e6, "others_cores": others}


def http(serving: Serving, case: Case, seconds: float) -> dict[str, float]:
    def load(length: float) -> dict[str, float]:
        if wrk.available():
            return wrk.closed(serving.url, serving.body, case.concurrency, length)
        more = ["--body", str(serving.body), "--concurrency", str(case.concurrency), "--seconds", str(length)]
        return run_program(_python_http("closed", serving.url, *more), {}, length)

    load(WARM_S)
    return _metered(serving, lambda: load(seconds))


def open_loop(serving: Serving, case: Case, seconds: float) -> dict[str, float]:
    def load(length: float) -> dict[str, float]:
        more = ["--body", str(serving.body), "--rate", str(case.rate), "--seconds", str(length)]
        return run_program(_python_http("open", serving.url, *more), {}, length)

    load(WARM_S)
    return _metered(serving, lambda: load(seconds))


def post(mode: str) -> Driver:
    def driver(serving: Serving, case: Case, seconds: float) -> dict[str, float]:
        more = ("--concurrency", str(case.concurrency), "--seconds", str(seconds))
        return _metered(serving, lambda: _post_client(serving, mode, seconds, *more))

    return driver


def bulk(serving: Serving, case: Case, seconds: float) -> dict[str, float]:
    figures = _metered(serving, lambda: _post_client(serving, "bulk", BULK_LIMIT_S))
    return figures | {"server_pss_mb": serving.server.memory().pss_mb}


def cold(serving: Serving, case: Case, seconds: float) -> dict[str, float]:
    return {"cold_s": serving.cold_s}


def idle(serving: Serving, case: Case, seconds: float) -> dict[str, float]:
    time.sleep(IDLE_S)
    memory = serving.server.memory()
    return {"pss_mb": memory.pss_mb, "uss_mb": memory.uss_mb, "rss_mb": memory.rss_mb, "processes": memory.processes}


Driver = Callable[[Serving, Case, float], dict[str, float]]
DRIVERS: Mapping[str, Driver] = {
    "http": http,
    "open": open_loop,
    "grpc": post("stream"),
    "tensors": post("tensors"),
    "bulk": bulk,
    "cold": cold,
    "idle": idle,
}
