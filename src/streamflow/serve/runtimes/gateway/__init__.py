"""See `streamflow.serve`."""

from streamflow.gateways.base import Gateway

__all__ = ["Gateway"]
