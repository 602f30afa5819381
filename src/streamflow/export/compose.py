"""A Compose file (https://github.com/compose-spec/compose-spec) as data, and its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import yaml


class Interpolated(str):
    """Text in which `${NAME:-default}` is for Compose to fill in; everywhere else a `$` is a `$`."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Service:
    """One service. Empty fields are left out; names are those of the specification but for `replicas`, `gpus` and `after`."""

    image: str = ""
    build: Mapping[str, Any] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    volumes: tuple[str, ...] = ()
    ports: tuple[str, ...] = ()
    healthcheck: Mapping[str, Any] = field(default_factory=dict)
    replicas: int = 1
    gpus: Mapping[str, Any] = field(default_factory=dict)  # a device reservation
    after: tuple[str, ...] = ()  # services that must be healthy first
    stop_grace_period: str = ""

    def to_dict(self) -> dict[str, Any]:
        own = ("replicas", "gpus", "after")
        plain: dict[str, Any] = {each.name: _plain(getattr(self, each.name)) for each in fields(self) if each.name not in own}
        deploy: dict[str, Any] = {"replicas": self.replicas} if self.replicas > 1 else {}
        if self.gpus:
            deploy["resources"] = {"reservations": {"devices": [dict(self.gpus)]}}
        plain["deploy"] = deploy
        plain["depends_on"] = {name: {"condition": "service_healthy"} for name in self.after}
        secure = {"restart": "unless-stopped", "init": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
        return {name: value for name, value in plain.items() if value} | secure


@dataclass(frozen=True, slots=True)
class ComposeFile:
    name: str
    services: Mapping[str, Service]
    volumes: tuple[str, ...] = ()  # named ones
    network: str = ""  # name of the default network; "" = Compose's own choice
    comment: str = ""

    def to_dict(self) -> dict[str, Any]:
        made: dict[str, Any] = {"name": self.name, "services": {name: service.to_dict() for name, service in self.services.items()}}
        if self.volumes:
            made["volumes"] = dict.fromkeys(self.volumes, {})
        if self.network:
            made["networks"] = {"default": {"name": self.network}}
        return made

    def to_yaml(self) -> str:
        head = "".join(f"# {line}\n" for line in self.comment.splitlines())
        return head + yaml.dump(_escaped(self.to_dict()), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=140)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


def _list(dumper: _Dumper, value: list[Any]) -> yaml.SequenceNode:
    """Commands and the like on one line."""
    is_short = all(isinstance(each, str | int) and "\n" not in str(each) for each in value) and len(str(value)) < 130
    return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=is_short)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(list, _list)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, Mapping) else value


def _escaped(value: Any) -> Any:
    """`value` with every `$` doubled that is not for Compose."""
    if isinstance(value, Interpolated):
        return str(value)
    if isinstance(value, str):
        return value.replace("$", "$$")
    if isinstance(value, Mapping):
        return {key: _escaped(each) for key, each in value.items()}
    return [_escaped(each) for each in value] if isinstance(value, list) else value
