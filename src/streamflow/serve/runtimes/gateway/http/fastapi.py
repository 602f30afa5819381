"""See `streamflow.serve`."""

from streamflow.gateways.fastapi import FastAPIBaseGateway

__all__ = ["FastAPIBaseGateway"]
