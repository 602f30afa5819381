"""`streamflow gateway`: the clients' side of a flow whose workers run elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from streamflow import logs
from streamflow.broker.settings import BrokerSettings, GatewaySettings, Listen
from streamflow.config.addresses import host_of, ports_of
from streamflow.config.build import gateway_spec
from streamflow.config.check import check_keywords
from streamflow.config.definition import DEFAULT_NAME
from streamflow.config.gateway_file import unfolded
from streamflow.config.load import jtype_of, read_source
from streamflow.config.models import GatewayArguments
from streamflow.config.ports import choose
from streamflow.deployment import Deployment
from streamflow.flow import Flow
from streamflow.gateway import service
from streamflow.plan import gateway_child, promised
from streamflow.sealing import seal
from streamflow.tasks import provision, serve

from .console import say
from .flow import spec_of
from .options import State, broker_url, common, flag, gateway_flags, given, logging_flags, own_logging, start_logging, uses


@click.command()
@uses("Flow file, whose streams are set up on the broker; or the file of a gateway class.", required=False)
@flag("--flow", metavar="NAME", help="Flow to serve, when --uses names none.  [default: default]")
@broker_url
@gateway_flags
@flag("--title", help="Title of the HTTP pages.")
@flag("--description", help="Description on the HTTP pages.")
@flag("--drain-s", type=float, help="Seconds a stop may take to finish what runs.  [default: 30]")
@logging_flags
@common
@click.pass_obj
def gateway(state: State, /, uses: str | None, flow: str | None, **flags: Any) -> int:
    """Accept requests for a flow over HTTP, gRPC and WebSocket until Ctrl-C."""
    start_logging(state, own_logging(flags))
    logs.rename("gateway")
    own = {name: flags.pop(name) for name in ("title", "description", "drain_s")}
    if uses is None:
        return _bare(flow, given({**flags, **own}))
    tree = read_source(uses)
    if jtype_of(tree) in ("", "Flow", "AsyncFlow", "Deployment"):
        return _of_file(uses, flow, flags, given(own))
    return _of_class(uses, flow, given(flags), given(own))


def _bare(flow: str | None, flags: dict[str, Any]) -> int:
    """A gateway that learns its flow from the broker."""
    protocols, ports = flags.pop("protocol", ("grpc",)), flags.pop("port", ())
    if ports and len(ports) != len(protocols):
        raise click.UsageError(f"{len(ports)} --port for {len(protocols)} --protocol ({', '.join(protocols)}): give one for each")
    host = flags.pop("host", "0.0.0.0")
    chosen = choose(list(ports) or [0] * len(protocols), host)
    listen = [
        Listen.model_validate({"protocol": protocol, "host": host, "port": port}) for protocol, port in zip(protocols, chosen, strict=True)
    ]
    return int(service.run(GatewaySettings(listen=listen, **given({"flow": flow}), **flags), report=say))


def _of_file(uses: str, name: str | None, flags: dict[str, Any], own: dict[str, Any]) -> int:
    """A gateway that deploys the flow file first."""
    kind = Deployment if jtype_of(read_source(uses)) == "Deployment" else Flow
    sealed = seal(spec_of(kind.load_config, uses, {**flags, "name": name}))
    url = sealed.broker_url or BrokerSettings().broker_url
    child = gateway_child(sealed.gateway, sealed.graph["flow"], url, sealed.classes.get("", b""), **own)
    provision(BrokerSettings(broker_url=url, **promised(sealed)), report=say, graph=sealed.graph)
    return serve(child.settings, report=say, **child.options)


def _of_class(uses: str, flow: str | None, flags: dict[str, Any], own: dict[str, Any]) -> int:
    """A gateway class by its own file; it learns its flow from the broker."""
    url = flags.pop("broker_url", None) or BrokerSettings().broker_url
    folder = Path.cwd()
    arguments = unfolded(check_keywords(GatewayArguments, {**flags, "uses": uses}, "gateway").given(), folder)
    spec = gateway_spec(arguments, folder, choose(ports_of(arguments), host_of(arguments)))
    child = gateway_child(spec, flow or DEFAULT_NAME, url, **own)
    return serve(child.settings, report=say, **child.options)
