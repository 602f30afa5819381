"""The apps on mosec; run by the interpreter that has mosec. App and suffixes come by environment, the rest are mosec's own flags."""

from __future__ import annotations

import os
import time
from typing import Any

from mosec import Server, Worker

BATCH_CALL_S = 0.010
SUFFIXES = [suffix for suffix in os.environ.get("LOAD_SUFFIXES", "").split(",") if suffix]


class Echo(Worker):
    def forward(self, data: Any) -> Any:
        return data


class Append(Worker):
    suffix = ""

    def forward(self, data: Any) -> Any:
        for doc in data["data"]:
            doc["text"] += self.suffix
        return data


class One(Append):
    suffix = SUFFIXES[0] if SUFFIXES else ""


class Two(Append):
    suffix = SUFFIXES[1] if SUFFIXES else ""


class Three(Append):
    suffix = SUFFIXES[2] if SUFFIXES else ""


class SlowBatch(Worker):
    def forward(self, data: list[Any]) -> list[Any]:
        time.sleep(BATCH_CALL_S)
        return data


STAGES: dict[str, list[type[Worker]]] = {"echo": [Echo], "chain3": [One, Two, Three], "batching": [SlowBatch]}
BATCH: dict[str, dict[str, int]] = {"batching": {"max_batch_size": 32, "max_wait_time": 5}}


def main() -> None:
    app, route = os.environ["LOAD_APP"], os.environ["LOAD_ROUTE"]
    server = Server()
    for worker in STAGES[app]:
        server.append_worker(worker, num=1, route=route, **BATCH.get(app, {}))
    server.run()


if __name__ == "__main__":
    main()
