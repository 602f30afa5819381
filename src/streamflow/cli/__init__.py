"""The command line. Options to settings to service: no logic here, and nothing heavy is imported before a command runs."""

from __future__ import annotations

from .app import main

__all__ = ["main"]
