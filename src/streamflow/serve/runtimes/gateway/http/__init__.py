"""See `streamflow.serve`."""
