"""Sends notes to the flow of flow.yml and prints the answers: `python examples/client.py [http://127.0.0.1:8080]`."""

from __future__ import annotations

import sys

from docarray import BaseDoc, DocList

from streamflow import Client


class Note(BaseDoc):
    text: str


class Counted(BaseDoc):
    text: str
    words: int
    top: list[str]


def main(host: str = "http://127.0.0.1:8080") -> None:
    notes = DocList[Note]([Note(text=f"The queue keeps it: the queue, the whole queue, and note {number}.") for number in range(20)])
    answers = Client(host=host).post("/count", notes, request_size=5, parameters={"top": 2}, return_type=DocList[Counted])
    for answer in answers:
        print(f"{answer.words:3} words, most of all {', '.join(answer.top)}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
