"""`when`: documents that fail an executor's condition are taken out before it, and stay out on the branch behind it (FL-30, FL-31).

Works on rows, so that nothing is lost of documents that no class here knows. An executor for which no document is left is not called.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamflow.broker.codec import merge
from streamflow.broker.codec.forms import dump_rows, load_rows
from streamflow.broker.envelope import COLUMNS, EMPTY, MATRIX, Envelope

Condition = Callable[[Any], bool]


def conditioned(envelope: Envelope, condition: Condition, parameters: dict[str, Any]) -> tuple[Envelope, bool]:
    """`envelope` with the documents that pass, and whether the executor is to be called: not when all of several, or the only one, failed.

    A request without documents passes. `parameters` are the request's own, which a JSON body would take with it. Raises `InvalidInput`.
    """
    if envelope.content_type == EMPTY:
        return envelope, True
    if envelope.content_type == MATRIX:
        return _conditioned_matrix(envelope, condition)
    rows = load_rows(envelope.body, envelope.content_type)
    kept = [row for row in rows if condition(row)]
    if len(kept) == len(rows):
        return envelope, True
    passed = envelope._replace(body=dump_rows(kept, COLUMNS), content_type=COLUMNS, parameters=parameters)
    return passed, bool(kept)


def _conditioned_matrix(envelope: Envelope, condition: Condition) -> tuple[Envelope, bool]:
    parts = []
    for part in merge.unstack(envelope.body):
        kept = [row for row in load_rows(part.body, part.content_type) if condition(row)]
        parts.append(merge.Part(part.name, COLUMNS, dump_rows(kept, COLUMNS)))
    return envelope._replace(body=merge.stack(parts)), True
