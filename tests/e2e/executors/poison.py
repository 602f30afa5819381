"""Dies, the hard way, on one kind of document."""

import os
import time

from docarray import DocList
from docarray.documents import TextDoc

from streamflow import Executor, requests


class Fragile(Executor):
    @requests
    def run(self, docs: DocList[TextDoc], **kwargs) -> None:
        for doc in docs:
            if doc.text == "poison":
                os._exit(9)
            time.sleep(0.002)
            doc.text += "!"
