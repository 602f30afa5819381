"""The fixtures of the end-to-end tests."""

from __future__ import annotations

from tests.e2e.conftest import module_programs, programs, say

__all__ = ["module_programs", "programs", "say"]
