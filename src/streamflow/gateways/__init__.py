"""Gateways of users: a class that serves what it likes and sends documents into the flow by its `streamer`.

`base.Gateway` for any server, `fastapi.FastAPIBaseGateway` for a FastAPI app; `streamer.py` is their way to the executors, `host.py` runs
them in the gateway process in the place of the built-in servers.
"""
