"""Calls of the official jina Client, unmodified: run with the Python of the environment that has it.

Arguments: protocol, port, number of documents. Prints one JSON object with what came back.
"""

import json
import sys

from docarray import DocList
from docarray.documents import TextDoc
from jina import Client

protocol, port, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


def shown(error: object) -> object:
    if isinstance(error, str):
        return error
    return [error.description, error.exception.name, error.exception.executor, bool(error.exception.stacks)]


client = Client(host="127.0.0.1", port=port, protocol=protocol)
inputs = DocList[TextDoc](TextDoc(text=f"document {n}") for n in range(number))

answers = client.post("/shout", inputs, return_type=DocList[TextDoc], request_size=10, parameters={"suffix": "!"})
errors: list = []
try:
    client.post("/fail", TextDoc(text="x"), return_type=DocList[TextDoc], on_error=lambda response: errors.append(response.header.status))
except ValueError as error:  # its HTTP client raises for a status other than 200 and calls no callback
    errors.append(str(error))
with_dict = client.post("/count", inputs[:3], return_responses=True, return_type=DocList[TextDoc])
targeted = client.post("/shout", TextDoc(text="a"), return_type=DocList[TextDoc], target_executor="nobody")
try:
    client.post("/fail", TextDoc(text="x"), return_type=DocList[TextDoc])
    raised = ""
except Exception as error:  # the class differs by protocol
    raised = type(error).__name__

print(
    json.dumps(
        {
            "texts": sorted(doc.text for doc in answers),
            "ready": client.is_flow_ready(),
            "errors": [shown(error) for error in errors],
            "results": with_dict[0].parameters["__results__"],
            "targeted": [doc.text for doc in targeted],
            "raised": raised,
        }
    )
)
