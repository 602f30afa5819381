"""Fixtures of the tests of workers."""

from __future__ import annotations

import pytest

from .streams import Talker


@pytest.fixture
def silent_talker() -> None:
    """`Talker` as if nobody had ever asked it."""
    Talker.forget()
