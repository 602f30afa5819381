"""Three nats-servers of this machine as one cluster, each with a store of its own, to be killed, paused, cut off and started again."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from itertools import permutations
from pathlib import Path
from typing import Any

from streamflow.broker.server import find_server_binary, free_port

SIZE = 3
START_S = 60.0
AWAYS = ("kill", "pause", "silence", "cut")  # how a server goes away: see `Cluster.hit`
_LINKS = Path(__file__).with_name("links.py")
_LEADER = re.compile(r"\] (\S+ \S+) \[INF\] JetStream cluster new (\w+) leader for '([^']+)'")
_CONFIG = """\
server_name: {name}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitoring}"
max_payload: 1048576
lame_duck_duration: "30s"
lame_duck_grace_period: "3s"
jetstream {{
  store_dir: "{store}"
  max_file_store: 1TB
}}
cluster {{
  name: sf
  listen: "127.0.0.1:{route}"
  advertise: "127.0.0.1:1"  # nobody is there: the servers reach each other by `routes` alone, which may be cut
  routes: [{routes}]
}}
{more}
"""


class Server:
    """One of the cluster."""

    def __init__(self, folder: Path, name: str, binary: Path, more: str) -> None:
        self.name = name
        self.binary = binary
        self._more = more
        self.port, self.route, self.monitoring = free_port(), free_port(), free_port()
        self.is_paused = False
        self._folder = folder / name
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self, routes: list[int]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        config = self._folder / "nats-server.conf"
        listed = ", ".join(f'"nats://127.0.0.1:{route}"' for route in routes)
        values = {"port": self.port, "route": self.route, "monitoring": self.monitoring, "store": self._folder, "routes": listed}
        config.write_text(_CONFIG.format(name=self.name, more=self._more, **values))
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([self.binary, "-c", config], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    @property
    def is_away(self) -> bool:
        return self.is_paused or self._process is None

    def listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as probe:
                return probe.recv(4) == b"INFO"
        except OSError:
            return False

    def is_healthy(self) -> bool:
        """Whether all its streams and consumers have caught up."""
        return bool(self._monitored("healthz").get("status") == "ok")

    def leads(self, size: int) -> bool:
        """Whether it leads a cluster of `size` servers that are all there."""
        others = self._monitored("jsz").get("meta_cluster", {}).get("replicas") or []
        return len(others) == size - 1 and all(each["current"] and not each.get("offline") for each in others)

    def _monitored(self, what: str) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.monitoring}/{what}", timeout=2.0) as answer:
                return dict(json.load(answer))
        except OSError:
            return {}

    def wait_end(self, timeout_s: float) -> None:
        assert self._process is not None
        self._process.wait(timeout_s)
        self._process = None

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self.is_paused = True

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)
        self.is_paused = False

    def lame_duck(self) -> None:
        """What an operator does before an upgrade: `nats-server --signal ldm`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGUSR2)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")


class Cluster:
    """`start()`, then `hit()` as often as wanted: one server at a time is away, the other two are a majority."""

    def __init__(self, folder: Path, seed: int, binary: Path | None = None, more: str = "") -> None:
        """`more`: lines for the configuration of each server."""
        self._chance = random.Random(seed)
        self.servers = [Server(folder, f"n{number}", binary or find_server_binary(), more) for number in range(SIZE)]
        self._links = {pair: free_port() for pair in permutations(range(SIZE), 2)}
        self._network: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers)

    @property
    def monitoring_url(self) -> str:
        return ",".join(f"http://127.0.0.1:{server.monitoring}" for server in self.servers)

    def start(self) -> None:
        self._start_network()
        for server in self.servers:
            self.start_one(server)
        limit = time.monotonic() + START_S
        while not all(server.listens() for server in self.servers) or not any(server.leads(SIZE) for server in self.servers):
            assert time.monotonic() < limit, "\n".join(server.log[-2000:] for server in self.servers)
            time.sleep(0.1)

    def _start_network(self) -> None:
        servers = self.servers
        links = [[port, servers[to].route, servers[near].name, servers[to].name] for (near, to), port in self._links.items()]
        command = [sys.executable, str(_LINKS), json.dumps(links)]
        self._network = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._network.stdout is not None and self._network.stdout.readline() == "ready\n"

    def _tell_network(self, words: str) -> None:
        assert self._network is not None and self._network.stdin is not None and self._network.stdout is not None
        print(words, file=self._network.stdin, flush=True)
        assert words.startswith(self._network.stdout.readline().strip())

    def start_one(self, server: Server) -> None:
        mine = self.servers.index(server)
        server.start([port for (near, _), port in self._links.items() if near == mine])

    def is_healthy(self) -> bool:
        return all(server.is_healthy() for server in self.servers)

    def hit(self) -> tuple[Server, str]:
        """Take one server away by chance: by kill -9, by freezing it, or by cutting it off from the other two while clients reach it, in
        silence or with its connections broken."""
        return self.take_away(self._chance.choice(self.servers), self._chance.choice(AWAYS))

    def take_away(self, server: Server, how: str) -> tuple[Server, str]:
        if how == "kill":
            server.kill()
        elif how == "pause":
            server.pause()
        else:
            self._tell_network(f"{how} {server.name}")
        return server, how

    def heal(self, server: Server) -> None:
        """Bring back `server`, whatever became of it. Harmless when it is there."""
        self._tell_network("heal")
        if server.is_paused:
            server.resume()
        elif server.is_away:
            self.start_one(server)

    def leaders(self, since: float) -> list[tuple[float, str]]:
        """Elections since a Unix time: seconds after it, and of what ("stream $G > sf_shop_e", "consumer ...")."""
        found = []
        for server in self.servers:
            for moment, kind, name in _LEADER.findall(server.log):
                after_s = datetime.strptime(moment, "%Y/%m/%d %H:%M:%S.%f").timestamp() - since
                if after_s >= 0:
                    found.append((after_s, f"{kind} {name}"))
        return sorted(found)

    def stop(self) -> None:
        for server in self.servers:
            server.kill()
        if self._network is not None:
            self._network.kill()
            self._network.communicate()
            self._network = None
