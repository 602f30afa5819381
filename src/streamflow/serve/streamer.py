"""See `streamflow.serve`."""

from streamflow.gateways.streamer import GatewayStreamer

__all__ = ["GatewayStreamer"]
