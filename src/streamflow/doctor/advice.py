"""What to write instead of Jina's names: one table for each place where they stand. docs/coming-from-jina.md says why."""

from __future__ import annotations

import re

_DOCUMENTS = "docarray before 0.30: define a class (`class Note(BaseDoc): text: str`) and write `{}`; `LegacyDocument` has the old fields"
_HUB = "the hub is gone: copy the executor's source and write the path of its config.yml"

# `uses:` and strings in Python: scheme to advice.
SCHEMES = {
    "docker": "the image must hold streamflow in place of jina, with `streamflow worker --uses config.yml` as its command",
    "jinahub": _HUB,
    "jinaai": _HUB,
    "http": "code is not loaded from a URL: download it and write its path",
    "https": "code is not loaded from a URL: download it and write its path",
}
SCHEME = re.compile(r"(docker|jinahub|jinaai|https?)(?:\+\w+)?://\S+")

# Classes of Jina's own gateways, as `uses` or `jtype`.
GATEWAYS = {"HTTPGateway": "http", "GRPCGateway": "grpc", "WebSocketGateway": "websocket", "CompositeGateway": "[grpc, http, websocket]"}

# `from jina import X` where streamflow has no X, and `from docarray import X` of old versions.
NAMES = {
    "Document": _DOCUMENTS.format("BaseDoc"),
    "DocumentArray": _DOCUMENTS.format("DocList[Note]"),
    "DocumentArrayMemmap": _DOCUMENTS.format("DocList[Note]"),
    "AsyncFlow": "write `Flow(asyncio=True)`",
}
OLD_DOCARRAY = frozenset({"Document", "DocumentArray", "DocumentArrayMemmap", "dataclass", "field"})

# Modules below `jina`, the longest name first.
MODULES = {
    "jina.proto": "write the .proto files with `streamflow export proto DIR` and generate code from them",
    "jina.logging": "write `self.logger` in an executor, `logging.getLogger(__name__)` elsewhere",
    "jina.excepts": "write `from streamflow import StreamflowError`, or one of its subclasses",
}

# Columns and methods of a DocumentArray: what a DocList has for them.
OLD_MEMBERS = {
    "texts": "`docs.text`",
    "embeddings": "`docs.embedding`",
    "tensors": "`docs.tensor`",
    "blobs": "`docs.blob`",
    "contents": "the field itself, such as `docs.text`",
    "traverse_flat": "a loop over the documents and their lists, such as `doc.chunks`",
    "embed": "a loop that sets `doc.embedding`",
    "match": "`docarray.utils.find.find_batched`",
}

VARIABLE = re.compile(r"JINA_[A-Z_]+")
# Dependencies and images: pattern of a line to advice.
REQUIREMENTS = {
    re.compile(r"jina(?![\w-])"): "write `streamflow`",
    re.compile(r"docarray\S*\s*(<\s*0\.[123]\d?|==\s*0\.[12]\d?\.|~=\s*0\.[12]\d?\.)"): "write `docarray>=0.40`",
}
DOCKERFILE = {
    re.compile(
        r"FROM\s+(\S*/)?jina(ai|hub)/\S+", re.IGNORECASE
    ): "start from an image with streamflow installed (compose/Dockerfile is one)",
    re.compile(r"(ENTRYPOINT|CMD)\s.*\bjina\b", re.IGNORECASE): 'write ENTRYPOINT ["streamflow", "worker", "--uses", "config.yml"]',
}
