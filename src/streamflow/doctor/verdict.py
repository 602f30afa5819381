"""What the examination of a broker says: one sentence each, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"  # it works now, and may not later
    FAIL = "fail"  # something promised does not hold


@dataclass(frozen=True, slots=True)
class Verdict:
    level: Level
    text: str
    advice: str = ""


def ok(text: str) -> Verdict:
    return Verdict(Level.OK, text)


def warn(text: str, advice: str) -> Verdict:
    return Verdict(Level.WARN, text, advice)


def fail(text: str, advice: str) -> Verdict:
    return Verdict(Level.FAIL, text, advice)
