"""The golden corpus of envelopes: messages as each released version wrote them, with what they say. Lines are added, never changed.

    python -m tests.unit.broker.golden    adds messages for fields that no line has yet

Each line of envelopes/v1.jsonl is `{"message": base64, "fields": {...}}`; tuples are lists, the body is base64.
"""

from __future__ import annotations

import json
import random
from base64 import b64decode, b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from streamflow.broker.envelope import COLUMNS, JSON, Claim, Envelope, Hop, encode
from streamflow.broker.errors import Code, Status

FOLDER = Path(__file__).with_name("envelopes")
RANDOM = 60  # messages with some of the fields each, beside one for every single field

# One telling value for every field; a new field must be added here.
VALUES: dict[str, Any] = {
    "request_id": "9f3c1a",
    "flow": "shop",
    "flow_version": "4be1",
    "endpoint": "/search",
    "run": "r7",
    "hop": "rank",
    "client_id": "order 66/ä",
    "content_type": JSON,
    "accept": JSON,
    "reply": "sf.reply.shop.a1b2c3.9f3c1a",
    "record": "0123456789abcdef.41",
    "keep_s": 3600.5,
    "latest": True,
    "deadline": 1795000000.25,
    "lane": "bulk",
    "target_executor": "^rank$",
    "part": "shard-1",
    "expected": ("shard-0", "shard-1"),
    "missing": ("shard-0",),
    "position": 7,
    "final": False,
    "stream": True,
    "source": "ab12.w1.9",
    "pieces": (12, 0, 5),
    "attempt": 3,
    "retried": 2,
    "parameters": {"top_k": 5, "deep": {"a": [1, 2.5, None, True, "é"]}, "raw": b"\x00\xff"},
    "results": {"rank": {"took": 0.5}},
    "trail": (Hop("embed", "embed/rep-0", 1.5, 2.5, 3.5, 1), Hop("rank", "rank/rep-1", 4.5, 5.5, 0.0, 2)),
    "trace": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
    "status": Status(Code.EXECUTOR_ERROR, "ValueError('x')", "ValueError", ("x",), ("line 1\n",), "rank"),
    "claim": Claim("c0ffee", 123456, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
    "extra": {"zz-later": [1, "two"]},
    "body": b'[{"text":"\xc3\xa9"}]\x00\xff',
}


class Golden(NamedTuple):
    message: bytes
    fields: dict[str, Any]


def corpus() -> list[tuple[str, Golden]]:
    """Every line of every version, named `v1:12`."""
    return [(f"{file.stem}:{number}", golden) for file in sorted(FOLDER.glob("*.jsonl")) for number, golden in enumerate(_read(file), 1)]


def _read(file: Path) -> Iterator[Golden]:
    for line in file.read_text(encoding="utf-8").splitlines():
        raw = json.loads(line)
        yield Golden(b64decode(raw["message"]), raw["fields"])


def said(envelope: Envelope) -> dict[str, Any]:
    """The fields that are not at their default, in the form of the corpus."""
    plain = {field: getattr(envelope, field) for field in Envelope._fields}
    return {field: _plain(value) for field, value in plain.items() if value != Envelope._field_defaults.get(field)}


def _plain(value: Any) -> Any:
    match value:
        case Status():
            return _plain(value.to_wire())
        case bytes() | memoryview():
            return {"base64": b64encode(value).decode()}
        case tuple() | list():
            return [_plain(each) for each in value]
        case dict():
            return {key: _plain(each) for key, each in value.items()}
    return value


def _envelopes(seed: int = 1) -> Iterator[Envelope]:
    dice = random.Random(seed)
    yield Envelope("1")
    yield Envelope(**VALUES)
    yield Envelope("1", accept=COLUMNS, body=bytes(range(256)))
    for field, value in VALUES.items():
        yield Envelope(**{"request_id": "1", field: value})
    for _ in range(RANDOM):
        chosen = dice.sample(sorted(VALUES), dice.randint(2, len(VALUES)))
        yield Envelope(**{"request_id": f"{dice.getrandbits(40):x}", **{field: VALUES[field] for field in chosen if field != "request_id"}})


def main() -> None:
    file = FOLDER / "v1.jsonl"
    FOLDER.mkdir(exist_ok=True)
    known = {golden.message for golden in _read(file)} if file.exists() else set()
    fresh = [envelope for envelope in _envelopes() if encode(envelope) not in known]
    if known:
        covered = {field for golden in _read(file) for field in golden.fields}
        fresh = [envelope for envelope in fresh if not said(envelope).keys() <= covered]
    with file.open("a", encoding="utf-8") as lines:
        for envelope in fresh:
            line = {"message": b64encode(encode(envelope)).decode(), "fields": said(envelope)}
            lines.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
