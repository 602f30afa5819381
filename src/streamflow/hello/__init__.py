"""Demonstrations that need no download: `streamflow hello digits`. Nothing heavy is imported before one is run."""
