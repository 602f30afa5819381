"""Bounds that every decoder keeps, so that no body, however hostile, costs more than its size suggests."""

from __future__ import annotations

from typing import Any

from .errors import InvalidInput

MAX_BODY_BYTES = 256 << 20
MAX_DOCUMENTS = 1_000_000
MAX_DEPTH = 64  # containers or documents inside each other
MAX_DIMS = 32  # of one tensor
_NESTS = (dict, list)


def check_size(body: bytes | memoryview) -> None:
    if len(body) > MAX_BODY_BYTES:
        raise InvalidInput(f"body of {len(body)} bytes, at most {MAX_BODY_BYTES} are read")


def check_count(count: int) -> None:
    if count > MAX_DOCUMENTS:
        raise InvalidInput(f"{count} documents in one request, at most {MAX_DOCUMENTS} are read")


def check_depth(value: Any, where: str, *, refuse: type = type(None)) -> None:
    """Raise `InvalidInput` naming `where` if lists and dicts lie more than `MAX_DEPTH` deep in `value`, or an instance of `refuse` does.

    Goes level by level: no recursion, whatever the body.
    """
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        if refuse is not type(None) and any(isinstance(item, refuse) for item in level):
            raise InvalidInput(f"{where}: a value that may only stand for a whole column")
        level = [item for item in level if isinstance(item, _NESTS)]
        if not level:
            return
        level = [child for item in level for child in (item.values() if isinstance(item, dict) else item)]
    raise InvalidInput(f"{where}: more than {MAX_DEPTH} levels inside each other")
