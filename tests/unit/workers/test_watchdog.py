"""Calls that run for longer than they may."""

from __future__ import annotations

import subprocess
import sys
import time

from streamflow.workers.watchdog import Watchdog, unwatched


def test_the_oldest_call_above_the_limit_is_told() -> None:
    watchdog = Watchdog(0.05)
    try:
        assert watchdog.look() is None
        with watchdog.watch("/slow"):
            time.sleep(0.06)
            with watchdog.watch("/quick"):
                assert watchdog.look() == "/slow"
        assert watchdog.look() is None
    finally:
        watchdog.stop()


def test_without_a_limit_all_calls_share_one_context_that_keeps_nothing() -> None:
    with unwatched("/run") as outer, unwatched("/other") as inner:
        assert outer is inner is None
    assert unwatched("/run") is unwatched("/other")


def test_who_holds_the_lock_is_ended_from_outside_of_it() -> None:
    # A regular expression that needs ages, and never lets another thread run.
    code = "import re, streamflow.workers.watchdog as w\nw.GRACE_S = 0.2\nw.Watchdog(0.3).look()\nre.match(r'(a+)+b', 'a' * 60)\n"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1 and "re/__init__.py" in ended.stderr and "Timeout" in ended.stderr
