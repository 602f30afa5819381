"""What somebody may have meant who wrote a name that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def hint(wanted: str, known: Iterable[str]) -> str:
    """For the end of a sentence: the name that is near, else all there are, else nothing."""
    names = sorted(known)
    close = difflib.get_close_matches(wanted, names, n=1)
    if close:
        return f", did you mean {close[0]!r}?"
    return f": there are {', '.join(names)}" if names else ""
