"""`streamflow export docker-compose` and `Flow.to_docker_compose_yaml`: a flow as services of one Compose file (CN-01).

A broker (unless the flow names one), the gateway, and a service for each executor: `deploy.replicas` of it, one service per shard, and one
per replica where replicas keep files. Nobody has to be told when a service is scaled: workers meet at the broker.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from streamflow.broker.errors import FlowError
from streamflow.broker.settings import WorkerSettings
from streamflow.config.spec import ExecutorSpec, FlowSpec

from .code import BASE_IMAGE, Code, code_of, relative, to_json
from .compose import ComposeFile, Interpolated, Service
from .gateway_file import gateway_yaml

BROKER_IMAGE = Interpolated("${NATS_IMAGE:-nats:2.15-alpine}")
BROKER_COMMAND = tuple(
    shlex.split("nats-server --name streamflow --jetstream --store_dir /data --addr 0.0.0.0 --port 4222 --http_port 8222")
)
BROKER_HEALTH = ("CMD", "wget", "--quiet", "--output-document=-", "http://127.0.0.1:8222/healthz")
GATEWAY_IMAGE = "STREAMFLOW_GATEWAY_IMAGE"  # environment variable, read now
DRAIN_S, GRACE = 30, "40s"  # Docker waits longer than a drain takes, so that nothing is killed in the middle of a request
COMMENT = """\
Flow {flow!r}, written by `streamflow export docker-compose`: docker compose up --build --wait
{image} is the image of streamflow itself, built with its compose/Dockerfile; STREAMFLOW_IMAGE names another one."""
SCHEMES = {"grpc": "grpc", "http": "http", "websocket": "ws"}


@dataclass(frozen=True, slots=True)
class Exported:
    """A service under its name, and the named volumes that it uses."""

    name: str
    service: Service
    volumes: tuple[str, ...] = ()


def compose_file(spec: FlowSpec, target: Path, *, network: str = "", include_gateway: bool = True) -> ComposeFile:
    """The services of a flow, for a file in folder `target`. Raises `FlowError` for executors that no image can be made of."""
    return _Export(spec, target).file(network, include_gateway=include_gateway)


class _Export:
    def __init__(self, spec: FlowSpec, target: Path) -> None:
        self._spec = spec
        self._target = target
        taken = {each.name for each in spec.executors}
        self._broker = "" if spec.broker_url else next(name for name in ("nats", "nats-broker", "streamflow-nats") if name not in taken)
        self._url = spec.broker_url or f"nats://{self._broker}:4222"
        self._after = (self._broker,) if self._broker else ()

    def file(self, network: str, *, include_gateway: bool) -> ComposeFile:
        made = [*self._brokers(), *([self._gateway()] if include_gateway else [])]
        made += [exported for executor in self._spec.executors for exported in self._workers(executor)]
        services: dict[str, Service] = {}
        for each in made:
            if each.name in services:
                raise FlowError(f"executor {each.name!r}: there would be two services of this name")
            services[each.name] = each.service
        project = re.sub(r"[^a-z0-9_-]", "-", self._spec.name.lower()).lstrip("-_") or "streamflow"
        volumes = tuple(dict.fromkeys(name for each in made for name in each.volumes))
        return ComposeFile(project, services, volumes, network, COMMENT.format(flow=self._spec.name, image=BASE_IMAGE))

    def _brokers(self) -> list[Exported]:
        if not self._broker:
            return []
        volume = f"{self._broker}-data"
        service = Service(
            image=BROKER_IMAGE,
            command=BROKER_COMMAND,
            volumes=(f"{volume}:/data",),
            healthcheck=_health(BROKER_HEALTH, interval_s=2),
            stop_grace_period="30s",
        )
        return [Exported(self._broker, service, (volume,))]

    def _gateway(self) -> Exported:
        gateway = self._spec.gateway
        uses = gateway.uses or ""
        if uses and not (isinstance(uses, str) and uses.startswith("docker://")):
            raise FlowError("gateway: uses: a gateway class of one's own cannot be exported; put it into an image and write docker://...")
        own = str(uses).removeprefix("docker://")
        files = {name: path for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca", "auth_file") if (path := getattr(gateway, name))}
        inside = {name: f"/certificates/{Path(path).name}" for name, path in files.items()}
        # Who may call from elsewhere was not said: only this machine, which a container sees as just another one.
        closed = gateway.host == "0.0.0.0" and not (gateway.auth_file or gateway.ssl_ca or gateway.allow_anonymous)
        access = {"STREAMFLOW_ALLOW_ANONYMOUS": "true"} if closed else {}
        published = "127.0.0.1:" if closed else "" if gateway.host == "0.0.0.0" else f"{gateway.host}:"
        first = gateway.listen[0]
        ping = ("CMD", "streamflow", "ping", f"{SCHEMES[first.protocol]}://127.0.0.1:{first.port}", "--attempts", "1")
        service = Service(
            image=own or os.environ.get(GATEWAY_IMAGE) or BASE_IMAGE,
            command=() if own else ("gateway",),
            environment={**access, **self._shared(gateway.env), "STREAMFLOW_USES": gateway_yaml(self._spec, **inside)},
            volumes=tuple(f"{relative(Path(path), self._target)}:{inside[name]}:ro" for name, path in files.items()),
            ports=tuple(f"{published}{each.port}:{each.port}" for each in gateway.listen),
            healthcheck={} if gateway.ssl_certfile else _health(ping, interval_s=10),
            after=self._after,
            stop_grace_period=GRACE,
        )
        return Exported("gateway", service)

    def _workers(self, spec: ExecutorSpec) -> Iterator[Exported]:
        """One service with all replicas, or one for each shard; and for each replica where replicas keep files of their own."""
        service, volumes = self._worker(spec)
        for shard in range(spec.shards) if spec.shards > 1 else (None,):
            name = spec.name if shard is None else f"{spec.name}-{shard}"
            variables = {} if shard is None else {"STREAMFLOW_SHARD": str(shard)}
            if not spec.workspace or spec.replicas == 1:
                yield Exported(name, replace(service, environment={**service.environment, **variables}), volumes)
                continue
            for replica in range(spec.replicas):
                own = {**service.environment, **variables, "STREAMFLOW_REPLICA": str(replica)}
                yield Exported(f"{name}-rep-{replica}", replace(service, environment=own, replicas=1), volumes)

    def _worker(self, spec: ExecutorSpec) -> tuple[Service, tuple[str, ...]]:
        code = code_of(spec, self._target)
        mounts = [self._mount(each, spec) for each in spec.options.get("volumes", ())]
        if spec.workspace and not spec.options.get("disable_auto_volume"):
            mounts.append(f"{spec.name}-workspace:/workspace")
        named = tuple(source for source in (each.split(":")[0] for each in mounts) if not source.startswith((".", "/", "~")))
        ping = ("CMD", "streamflow", "ping", "executor", f"{self._url.split(',')[0]}/{self._spec.name}/{spec.name}", "--attempts", "1")
        service = Service(
            image=code.image,
            build=code.build,
            entrypoint=tuple(shlex.split(str(spec.options.get("entrypoint", "")))),
            command=_command(code, spec),
            environment={**self._shared(spec.env), **self._variables(spec)},
            volumes=tuple(mounts),
            healthcheck=_health(ping, interval_s=15),
            replicas=spec.replicas,
            gpus=_devices(spec),
            after=self._after,
            stop_grace_period=GRACE,
        )
        return service, named

    def _shared(self, env: Mapping[str, str]) -> dict[str, str]:
        return {"STREAMFLOW_BROKER_URL": self._url, "STREAMFLOW_DRAIN_S": str(DRAIN_S), **env}

    def _variables(self, spec: ExecutorSpec) -> dict[str, str]:
        """What tells a worker who it is; by environment, so that it reaches whatever the image's entry point is."""
        who = f"executor {spec.name!r}"
        given = {name: getattr(spec, name) for name in ("uses_with", "uses_metas", "uses_requests", "uses_dynamic_batching")}
        settings = {name: value for name, value in spec.options.items() if name in WorkerSettings.model_fields}
        more = {name: value for name, value in {**given, **settings}.items() if value}
        variables = {"STREAMFLOW_FLOW": self._spec.name, "STREAMFLOW_NAME": spec.name}
        variables |= {f"STREAMFLOW_{name.upper()}": _written(value, f"{who}: {name}") for name, value in more.items()}
        if spec.concurrency is not None:
            variables["STREAMFLOW_CONCURRENCY"] = str(spec.concurrency)
        return {**variables, "STREAMFLOW_WORKSPACE": "/workspace"} if spec.workspace else variables

    def _mount(self, volume: str, spec: ExecutorSpec) -> str:
        """ "host:/inside"; a path alone is mounted under its last part."""
        source, colon, inside = volume.partition(":")
        path = spec.folder / Path(source).expanduser()
        if not colon:
            inside = str(PurePosixPath("/") / path.resolve().name)
        elif "/" not in source and not path.exists():
            return volume  # a named volume
        return f"{relative(path, self._target)}:{inside}"


def _command(code: Code, spec: ExecutorSpec) -> tuple[str, ...]:
    return () if spec.options.get("entrypoint") else code.command


def _written(value: Any, what: str) -> str:
    return value if isinstance(value, str) else to_json(value, what)


def _devices(spec: ExecutorSpec) -> dict[str, Any]:
    """`gpus` of `docker run`: "all", a number, or "device=0,2"."""
    gpus = str(spec.options.get("gpus", ""))
    if not gpus:
        return {}
    wanted: dict[str, Any] = {"driver": "nvidia", "capabilities": ["gpu"]}
    if gpus.startswith("device="):
        return {**wanted, "device_ids": gpus.removeprefix("device=").split(",")}
    if gpus != "all" and not gpus.isdecimal():
        raise FlowError(f"executor {spec.name!r}: gpus: {gpus!r} is not 'all', a number or 'device=0,1'")
    return {**wanted, "count": gpus if gpus == "all" else int(gpus)}


def _health(test: tuple[str, ...], *, interval_s: int) -> dict[str, Any]:
    return {"test": list(test), "interval": f"{interval_s}s", "timeout": "10s", "start_period": "60s", "retries": 3}
