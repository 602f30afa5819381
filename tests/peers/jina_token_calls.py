"""Calls of the official jina Client with a bearer token, where it can send one: run with the Python of the environment that has it.

Arguments: protocol, port, token. Prints one JSON object: the texts that came back, or what was raised.
"""

import json
import sys

from docarray import DocList
from docarray.documents import TextDoc
from jina import Client

protocol, port, token = sys.argv[1], int(sys.argv[2]), sys.argv[3]
given = {"authorization": f"Bearer {token}"} if token else {}
sent = {"grpc": {"metadata": tuple(given.items())}, "http": {"headers": given}, "websocket": {"headers": given}}[protocol]
try:
    answers = Client(host="127.0.0.1", port=port, protocol=protocol).post(
        "/shout", DocList[TextDoc]([TextDoc(text="a"), TextDoc(text="b")]), return_type=DocList[TextDoc], **sent
    )
    print(json.dumps({"texts": [doc.text for doc in answers]}))
except BaseException as error:  # its class differs by protocol
    print(json.dumps({"raised": type(error).__name__, "text": str(error)}))
