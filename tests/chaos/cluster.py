"""Three nats-servers of this machine as one cluster, each with a store of its own, to be killed, paused and started again."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import time
from pathlib import Path

from streamflow.broker.server import find_server_binary, free_port

SIZE = 3
START_S = 20.0
_CONFIG = """\
server_name: {name}
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitoring}"
max_payload: 1048576
jetstream {{
  store_dir: "{store}"
  max_file_store: 1TB
}}
cluster {{
  name: sf
  listen: "127.0.0.1:{route}"
  routes: [{routes}]
}}
"""


class Server:
    """One of the cluster."""

    def __init__(self, folder: Path, name: str, route: int) -> None:
        self.name = name
        self.port, self.route, self.monitoring = free_port(), route, free_port()
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
        config.write_text(_CONFIG.format(name=self.name, **values))
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen([find_server_binary(), "-c", config], stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    @property
    def is_away(self) -> bool:
        return self.is_paused or self._process is None

    def listens(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as probe:
                return probe.recv(4) == b"INFO"
        except OSError:
            return False

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

    def __init__(self, folder: Path, seed: int) -> None:
        self._chance = random.Random(seed)
        routes = [free_port() for _ in range(SIZE)]
        self.servers = [Server(folder, f"n{number}", route) for number, route in enumerate(routes)]

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers)

    @property
    def monitoring_url(self) -> str:
        return ",".join(f"http://127.0.0.1:{server.monitoring}" for server in self.servers)

    def start(self) -> None:
        for server in self.servers:
            self.start_one(server)
        limit = time.monotonic() + START_S
        while not all(server.listens() for server in self.servers) or not self.has_leader():
            assert time.monotonic() < limit, "\n".join(server.log[-2000:] for server in self.servers)
            time.sleep(0.1)

    def start_one(self, server: Server) -> None:
        server.start([each.route for each in self.servers])

    def has_leader(self) -> bool:
        return any("JetStream cluster new metadata leader" in server.log for server in self.servers)

    def hit(self) -> tuple[Server, str]:
        """Take one server away by chance: by kill -9, or by freezing it."""
        server, how = self._chance.choice(self.servers), self._chance.choice(("kill", "pause"))
        server.kill() if how == "kill" else server.pause()
        return server, how

    def heal(self, server: Server) -> None:
        if server.is_paused:
            server.resume()
        else:
            self.start_one(server)

    def stop(self) -> None:
        for server in self.servers:
            server.kill()
