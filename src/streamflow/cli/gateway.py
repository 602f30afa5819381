"""`streamflow gateway`: the clients' side of a flow whose workers run elsewhere."""

from __future__ import annotations

from typing import Any

import click

from streamflow import logs

from .flow import spec_of
from .options import State, broker_url, common, flag, gateway_flags, given, start_logging, uses
from .worker import say


@click.command(short_help="Accept requests for a flow.")
@uses("Flow file: its streams are set up on the broker and its gateway section is used.", required=False)
@flag("--flow", metavar="NAME", help="Flow to serve, when there is no --uses.  [default: default]")
@broker_url
@gateway_flags
@flag("--title", help="Title of the HTTP pages.")
@flag("--description", help="Description on the HTTP pages.")
@flag("--drain-s", type=float, help="Seconds a stop may take to finish what runs.  [default: 30]")
@common
@click.pass_obj
def gateway(state: State, /, uses: str | None, flow: str | None, **flags: Any) -> int:
    """Accept requests for a flow over HTTP, gRPC and WebSocket until Ctrl-C."""
    start_logging(state)
    logs.rename("gateway")
    own = {name: flags.pop(name) for name in ("title", "description", "drain_s")}
    if uses is None:
        return _bare(flow, given({**flags, **own}))
    return _of_file(uses, flow, flags, given(own))


def _bare(flow: str | None, flags: dict[str, Any]) -> int:
    """A gateway that learns its flow from the broker."""
    from streamflow.broker.settings import GatewaySettings, Listen  # pydantic: 0.1 s, and below fastapi and grpc: 0.3 s
    from streamflow.config.ports import choose
    from streamflow.gateway import service

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
    from streamflow.broker.settings import BrokerSettings
    from streamflow.config.load import jtype_of, read_source
    from streamflow.deployment import Deployment
    from streamflow.flow import Flow
    from streamflow.plan import gateway_child, provision, seal, serve

    kind = Deployment if jtype_of(read_source(uses)) == "Deployment" else Flow
    sealed = seal(spec_of(kind.load_config, uses, {**flags, "name": name}))
    url = sealed.broker_url or BrokerSettings().broker_url
    child = gateway_child(sealed, url, **own)
    provision(BrokerSettings(broker_url=url), report=say, graph=sealed.graph)
    return serve(child.settings, report=say, **child.options)
