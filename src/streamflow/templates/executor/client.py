"""Sends two documents and prints the answers: `python client.py [grpc://127.0.0.1:54321]`."""

from __future__ import annotations

import sys

from docarray import DocList
from executor1.executor import Message

from streamflow import Client


def main(host: str = "grpc://127.0.0.1:54321") -> None:
    docs = Client(host=host).post("/", DocList[Message]([Message(), Message()]), return_type=DocList[Message])
    print(docs.text)


if __name__ == "__main__":
    main(*sys.argv[1:2])
