"""The named profiles and the aims their ratios are held against. Data only: `runner.py` runs it, `report.py` judges it."""

from __future__ import annotations

from dataclasses import dataclass

from . import apps
from .apps import App


@dataclass(frozen=True, slots=True)
class Case:
    """One load on a running target. `rate` is requests per second of an open loop, 0 for a closed loop."""

    name: str
    concurrency: int = 1
    rate: float = 0.0


@dataclass(frozen=True, slots=True)
class Profile:
    """`driver` is a key of `runner.DRIVERS`; `client` is the gRPC client: `own` (the target's) or `jina`."""

    name: str
    about: str
    app: App
    driver: str
    targets: tuple[str, ...]
    cases: tuple[Case, ...]
    protocol: str = "http"
    client: str = "own"
    rounds: int = 3
    headline: str = "rps"


@dataclass(frozen=True, slots=True)
class Aim:
    """streamflow's median divided by the peer's must be at least (or at most) `limit`; `wish` = aimed at, not required."""

    profile: str
    case: str
    metric: str
    peer: str
    limit: float
    at_least: bool = True
    wish: bool = False

    def met(self, ratio: float) -> bool:
        return ratio >= self.limit if self.at_least else ratio <= self.limit


HTTP_CASES = (Case("c=1", 1), Case("c=64", 64))
ALL_HTTP = ("streamflow", "jina", "mosec")
BOTH = ("streamflow", "jina")
WHOLE = (Case("3 executors"),)

PROFILES = {
    profile.name: profile
    for profile in (
        Profile("echo-http", "HTTP echo of a 1 KiB document, closed loop", apps.ECHO, "http", ALL_HTTP, HTTP_CASES),
        Profile("chain3-http", "three executors, each appends to the text", apps.CHAIN3, "http", ALL_HTTP, HTTP_CASES),
        Profile(
            "echo-http-open",
            "HTTP echo at a constant arrival rate, latency from the intended send time",
            apps.ECHO,
            "open",
            ALL_HTTP,
            (Case("200/s", 0, 200.0), Case("500/s", 0, 500.0)),
            headline="p50_ms",
        ),
        Profile(
            "echo-grpc-jina",
            "gRPC echo, jina's own client against both",
            apps.ECHO,
            "grpc",
            BOTH,
            HTTP_CASES,
            protocol="grpc",
            client="jina",
        ),
        Profile("echo-grpc-own", "gRPC echo, each with its own client", apps.ECHO, "grpc", BOTH, HTTP_CASES, protocol="grpc"),
        Profile(
            "tensors-grpc",
            "128 documents of 768 float32 in one request, each with its own client",
            apps.TENSORS,
            "tensors",
            BOTH,
            (Case("c=1", 1), Case("c=8", 8)),
            protocol="grpc",
        ),
        Profile(
            "bulk",
            "100,000 small documents from a generator, request_size 100, each with its own client",
            apps.ECHO,
            "bulk",
            BOTH,
            (Case("100k docs"),),
            protocol="grpc",
            headline="docs_per_s",
        ),
        Profile("cold-start", "process start to first answered request", apps.CHAIN3, "cold", ALL_HTTP, WHOLE, rounds=7, headline="cold_s"),
        Profile("idle-memory", "PSS of all processes after 5 s idle", apps.CHAIN3, "idle", ALL_HTTP, WHOLE, headline="pss_mb"),
        Profile(
            "journal",
            "HTTP echo without and with a journal, and with every answer kept",
            apps.ECHO,
            "http",
            ("streamflow", "streamflow-journal", "streamflow-kept"),
            HTTP_CASES,
        ),
        Profile("shards", "three shards, polling ALL", apps.SHARDS3, "http", BOTH, (Case("c=1", 1), Case("c=16", 16))),
        Profile("batching", "10 ms per call, at most 32 documents, 5 ms wait", apps.BATCHING, "http", ALL_HTTP, (Case("c=64", 64),)),
    )
}

AIMS = (
    Aim("echo-http", "c=64", "rps", "jina", 10.0),
    Aim("echo-http", "c=64", "rps", "mosec", 1.0, wish=True),
    Aim("echo-http", "c=1", "p50_ms", "jina", 0.4, at_least=False),
    Aim("chain3-http", "c=64", "rps", "jina", 12.0),
    Aim("echo-grpc-jina", "c=64", "rps", "jina", 1.5),
    Aim("echo-grpc-own", "c=64", "rps", "jina", 4.0),
    Aim("tensors-grpc", "c=8", "rps", "jina", 8.0),
    Aim("bulk", "100k docs", "docs_per_s", "jina", 6.0),
    Aim("bulk", "100k docs", "client_peak_mb", "jina", 0.5, at_least=False),
    Aim("shards", "c=16", "rps", "jina", 8.0),
    Aim("cold-start", "3 executors", "cold_s", "jina", 0.6, at_least=False),
    Aim("idle-memory", "3 executors", "pss_mb", "jina", 0.6, at_least=False),
)
