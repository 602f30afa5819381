"""Demonstrations that need no download: `streamflow hello digits` and `multimodal`. Nothing heavy is imported before one is run."""
