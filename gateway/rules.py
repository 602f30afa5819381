"""The access rules of a gateway as they are now: a changed `auth_file`, or a key file that it names, holds within a second, without a
restart, for open sockets and streams as well. A file that cannot be used changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from streamflow.broker.errors import FlowError
from streamflow.broker.settings import GatewaySettings

from .auth import Access, access_of, is_closed
from .principals import AGAIN, CURRENT, Principal

log = logging.getLogger(__name__)

LOOK_S = 0.5
AGAIN_S = 1.0  # who calls is found out again so often while its connection lasts: tokens end
_Marks = dict[Path, tuple[int, int, int] | None]


class Rules:
    """`access` None: everybody is let in. `watch` is for one task of the process."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Raises `FlowError` for an `auth_file` that cannot be used."""
        self._settings = settings
        self.access = access_of(settings)
        self._marks = self._look()

    def admit(self, authorization: str, names: Sequence[str] = ()) -> Principal:
        """`Access.admit`, by the newest rules; who it is holds for the running task, and is asked again when the rules have changed."""
        assert self.access is not None
        admitted = _Admitted(self, authorization, names)
        CURRENT.set(admitted.principal)
        AGAIN.set(admitted.now)
        return admitted.principal

    async def watch(self) -> None:
        """Look at the files until cancelled."""
        while self._settings.auth_file:
            await asyncio.sleep(LOOK_S)
            marks = self._look()
            if marks != self._marks:
                self._marks = marks
                await self._read_again()

    async def _read_again(self) -> None:
        try:
            self.access = await asyncio.to_thread(access_of, self._settings)
        except Exception as error:  # whatever became of the file
            first, *more = (str(error) if isinstance(error, FlowError) else repr(error)).splitlines()
            log.error("the rules stay what they were: %s%s", first, f" (and {len(more)} more)" if more else "")
            return
        log.info("%s was read again: its rules hold from now on", self._settings.auth_file)

    def _look(self) -> _Marks:
        return {file: _mark(file) for file in self.access.files} if self.access is not None else {}


class _Admitted:
    """A caller, found out by what came with its connection."""

    def __init__(self, rules: Rules, authorization: str, names: Sequence[str]) -> None:
        self._rules = rules
        self._given = authorization, names
        self._find_out()

    def now(self) -> Principal:
        """Who it is by the newest rules, if that has not ended. Raises what `Access.admit` raises."""
        if self._access is not self._rules.access or time.monotonic() - self._since > AGAIN_S:
            self._find_out()
        return self.principal

    def _find_out(self) -> None:
        access = self._rules.access
        assert access is not None
        self.principal = access.admit(*self._given)
        self._access: Access = access
        self._since = time.monotonic()


# The ports of one gateway share its rules, so that a changed file is read, and told of, once.
_KNOWN: WeakValueDictionary[tuple[object, ...], Rules] = WeakValueDictionary()


def rules_of(settings: GatewaySettings) -> Rules:
    """Of the gateway with these settings. Raises `FlowError` for an `auth_file` that cannot be used."""
    asked = ("auth_file", "ssl_ca", "ssl_certfile", "ssl_keyfile", "allow_anonymous")
    key = (*(getattr(settings, name) for name in asked), is_closed(settings))
    rules = _KNOWN.get(key)
    if rules is None:
        rules = _KNOWN[key] = Rules(settings)
    return rules


def _mark(file: Path) -> tuple[int, int, int] | None:
    """What differs when a file has changed; None when it cannot be seen."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
