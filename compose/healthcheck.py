"""Health check of the containers; exit code 0 = healthy. `STREAMFLOW_HEALTH` says of what: `worker://<flow>/<executor>` or `http://<gateway>`.

A gateway is healthy when every executor of its flow has a ready replica; a worker when it announces itself as ready on the bus, which
shows that its executor is loaded and that it is connected.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

TIMEOUT_S = 4.0


def gateway(url: str) -> None:
    with urllib.request.urlopen(f"{url}/readyz", timeout=TIMEOUT_S) as answer:
        if answer.status != 200:
            raise RuntimeError(f"{url}/readyz answers {answer.status}")


async def worker(flow: str, executor: str) -> None:
    """Ask all workers of the flow to announce themselves, and wait for the one that runs in this container."""
    from streamflow.broker.accounts import settings_for  # these are not needed for a gateway
    from streamflow.broker.announce import Announcement, State
    from streamflow.broker.bus import Bus
    from streamflow.broker.permissions import Role
    from streamflow.broker.settings import BrokerSettings
    from streamflow.broker.subjects import control

    settings = settings_for(BrokerSettings(connect_wait_s=1.0), Role.WORKER, flow, executor)
    bus = await Bus.connect(settings, "healthcheck")
    ready = asyncio.Event()

    def heard(_subject: bytes, _reply: bytes, _header: bytes | None, payload: bytes) -> None:
        said = Announcement.decode(payload)
        if (said.executor, said.host, said.state) == (executor, socket.gethostname(), State.READY):
            ready.set()

    try:
        await bus.listen(control(flow, "announce"), heard)
        bus.publish(control(flow, "hello"), b"")
        await ready.wait()
    finally:
        await bus.close()


def main() -> int:
    target = os.environ.get("STREAMFLOW_HEALTH", "")
    parts = urlsplit(target)
    try:
        if parts.scheme == "worker":
            asyncio.run(asyncio.wait_for(worker(parts.netloc, parts.path.strip("/")), TIMEOUT_S))
        elif parts.scheme in ("http", "https"):
            gateway(target)
        else:
            raise RuntimeError(f"STREAMFLOW_HEALTH={target!r} is neither worker://flow/executor nor http://host:port")
    except Exception as error:  # whatever it is, it goes into `docker inspect` as one line
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
