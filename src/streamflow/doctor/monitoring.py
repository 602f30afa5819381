"""What the HTTP monitoring of nats-servers says: the only place where one tells whether it writes through to disk."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from streamflow.broker.server import monitoring_port
from streamflow.broker.settings import BrokerSettings

USUAL_PORT = 8222
TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Monitored:
    """One server's answer to /jsz. `max_bytes`: what its file store may hold."""

    url: str
    server_id: str
    name: str
    is_synced: bool  # sync_interval: always
    store: str
    max_bytes: int
    stored_bytes: int
    reserved_bytes: int


async def look(settings: BrokerSettings) -> list[Monitored]:
    """Every server that answers at the URLs given, or where monitoring usually is. Strangers may be among them: see their id."""
    found = await asyncio.gather(*(asyncio.to_thread(_ask, url) for url in _urls(settings)))
    return [each for each in found if each is not None]


def _urls(settings: BrokerSettings) -> list[str]:
    if settings.monitoring_url:
        return [url.strip().rstrip("/") for url in settings.monitoring_url.split(",")]
    urls = []
    for text in settings.broker_url.split(","):
        parts = urlsplit(text.strip() if "://" in text else f"nats://{text.strip()}")
        ports = (monitoring_port(parts.port or 4222), USUAL_PORT)
        urls += [f"http://{parts.hostname or '127.0.0.1'}:{port}" for port in ports]
    return list(dict.fromkeys(urls))


def _ask(url: str) -> Monitored | None:
    try:
        jetstream = _get(f"{url}/jsz?config=true")
        name = _get(f"{url}/varz")["server_name"]
        config = jetstream["config"]
        return Monitored(
            url, jetstream["server_id"], name, bool(config.get("sync_always")), config.get("store_dir", ""),
            config.get("max_storage", 0), jetstream.get("storage", 0), jetstream.get("reserved_storage", 0),
        )  # fmt: skip
    except (OSError, ValueError, KeyError):
        return None


def _get(url: str) -> dict[str, Any]:
    """A JSON object; no proxy, since monitoring is near."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=TIMEOUT_S) as answer:
        found = json.load(answer)
    if not isinstance(found, dict):
        raise ValueError(f"{url} is not a nats-server's monitoring")
    return found
