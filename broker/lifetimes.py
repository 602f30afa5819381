"""How long things are kept that are needed for a time only. What an accepted request needs never ends before the request
(docs/decisions/0031-lifetimes.md).

A stream's `max_age` ends a message even where its own TTL is longer (nats-server 2.15.1), so a stream is as patient as the longest of
what lies in it, and the rest says how long.
"""

from __future__ import annotations

from .envelope import Envelope
from .flow import Graph
from .settings import BrokerSettings

DEAD_LETTER_AGE_S = 7 * 86400.0


def under_way_s(envelope: Envelope, settings: BrokerSettings) -> float:
    """Seconds that a part, or a large body, of a request that is under way is kept: until its deadline and a while longer; where there is
    none, so of jobs and of requests whose answer is kept, as long as inputs and answers are."""
    left_s = envelope.remaining_s()
    return settings.keep_s if left_s is None else max(0.0, left_s) + settings.blob_ttl_s


def longest_under_way_s(settings: BrokerSettings) -> float:
    """The age that streams of such parts and bodies must allow."""
    return settings.keep_s + settings.blob_ttl_s


def longest_kept_s(graph: Graph, settings: BrokerSettings) -> float:
    """The age that the stream must allow which holds large bodies of stored inputs, outcomes, journal copies and dead letters: as long as
    any of these, and as what was made of it and is under way."""
    journal_s = graph.journal.keep_s if graph.journal else 0.0
    return max(settings.keep_s, journal_s, DEAD_LETTER_AGE_S) + settings.blob_ttl_s
