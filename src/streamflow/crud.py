"""Index, search, update and delete: short forms of `post()` for whatever has one (`Client`, `Flow`, `Deployment`), as Jina 1.x had them.

`inputs` are what `post` takes; strings besides (as texts, for `delete` as ids), and arrays (a document for each row). Further keywords are
those of `post`; those of the readers (`size`, `doc_type`, `sampling_rate` ...) go by `reading={...}`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")
Source = str | Path | Iterable[str]
Reading = Mapping[str, Any]
_NOTHING: Reading = {}


class Crud(ABC, Generic[Answer]):
    @abstractmethod
    def post(self, on: str, inputs: Any = None, *arguments: Any, **options: Any) -> Answer: ...

    def index(self, inputs: Any = None, **options: Any) -> Answer:
        return self.post("/index", _documents(inputs), **options)

    def search(self, inputs: Any = None, top_k: int | None = None, **options: Any) -> Answer:
        """`top_k` is a parameter of the endpoint."""
        if top_k is not None:
            options["parameters"] = {**(options.get("parameters") or {}), "top_k": top_k}
        return self.post("/search", _documents(inputs), **options)

    def update(self, inputs: Any = None, **options: Any) -> Answer:
        return self.post("/update", _documents(inputs), **options)

    def delete(self, inputs: Any = None, **options: Any) -> Answer:
        """`inputs` may be ids."""
        return self.post("/delete", _documents(inputs, "id"), **options)

    def index_ndarray(self, array: Any, reading: Reading = _NOTHING, **options: Any) -> Answer:
        """One document for each row of `array` (`client.from_ndarray`)."""
        return self.post("/index", _readers().from_ndarray(array, **reading), **options)

    def index_csv(
        self, source: Source, field_resolver: Mapping[str, str] | None = None, reading: Reading = _NOTHING, **options: Any
    ) -> Answer:
        """One document for each line (`client.from_csv`)."""
        return self.post("/index", _readers().from_csv(source, field_resolver, **reading), **options)

    def index_ndjson(
        self, source: Source, field_resolver: Mapping[str, str] | None = None, reading: Reading = _NOTHING, **options: Any
    ) -> Answer:
        """One document for each line (`client.from_ndjson`)."""
        return self.post("/index", _readers().from_ndjson(source, field_resolver, **reading), **options)

    def index_files(self, patterns: str | Path | Iterable[str | Path], reading: Reading = _NOTHING, **options: Any) -> Answer:
        """One document for each file (`client.from_files`)."""
        return self.post("/index", _readers().from_files(patterns, **reading), **options)

    def search_ndarray(self, array: Any, reading: Reading = _NOTHING, **options: Any) -> Answer:
        return self.search(_readers().from_ndarray(array, **reading), **options)

    def search_csv(
        self, source: Source, field_resolver: Mapping[str, str] | None = None, reading: Reading = _NOTHING, **options: Any
    ) -> Answer:
        return self.search(_readers().from_csv(source, field_resolver, **reading), **options)

    def search_ndjson(
        self, source: Source, field_resolver: Mapping[str, str] | None = None, reading: Reading = _NOTHING, **options: Any
    ) -> Answer:
        return self.search(_readers().from_ndjson(source, field_resolver, **reading), **options)

    def search_files(self, patterns: str | Path | Iterable[str | Path], reading: Reading = _NOTHING, **options: Any) -> Answer:
        return self.search(_readers().from_files(patterns, **reading), **options)


def _documents(inputs: Any, field: str = "text") -> Any:
    if isinstance(inputs, str):
        return _readers().from_texts([inputs], field)
    if isinstance(inputs, (list, tuple)) and inputs and all(isinstance(each, str) for each in inputs):
        return _readers().from_texts(inputs, field)
    if hasattr(inputs, "ndim") and hasattr(inputs, "shape"):
        return _readers().from_ndarray(inputs)
    return inputs


def _readers() -> ModuleType:
    # Lazy: brings docarray, which defining a flow does without.
    from .client import readers

    return readers
