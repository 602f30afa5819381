"""What the page talks to: one endpoint that answers at once, one that answers token by token."""

import asyncio

from docarray import BaseDoc, DocList
from pydantic import Field

from streamflow import Executor, requests


class Prompt(BaseDoc):
    """What to write about."""

    text: str = Field("", description="Any words", examples=["to be or not"])
    pause_ms: int = Field(30, description="Milliseconds between two tokens")


class Token(BaseDoc):
    """A word, as it is written."""

    text: str = ""


class Typewriter(Executor):
    @requests(on="/length")
    async def length(self, docs: DocList[Prompt], **kwargs) -> DocList[Token]:
        """How many letters a prompt has."""
        return DocList[Token](Token(text=str(len(doc.text))) for doc in docs)

    @requests(on="/write")
    async def write(self, doc: Prompt, **kwargs) -> Token:
        """The prompt again, word by word."""
        for word in doc.text.split():
            await asyncio.sleep(doc.pause_ms / 1000)
            yield Token(text=word)
