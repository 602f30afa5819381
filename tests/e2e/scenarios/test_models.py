"""Executors that compute: on a device of the user's choice, over many documents, in a container."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from docarray import BaseDoc, DocList
from docarray.typing import AnyTensor, NdArray

from streamflow import Deployment, Executor, requests


class Embedded(BaseDoc):
    text: str = ""
    embedding: AnyTensor | None = None


class MyGPUExec(Executor):
    """The library is the device's: numpy computes on the CPU only."""

    def __init__(self, device: str = "cpu", library: str = "numpy", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.device, self.library = device, library

    @requests
    def encode(self, docs: DocList[Embedded], **kwargs: Any) -> None:
        on_gpu = False
        if self.library == "torch":
            import torch

            embeddings: Any = torch.rand((len(docs), 5), device=self.device)
            on_gpu = embeddings.is_cuda
        else:
            embeddings = np.random.default_rng().random((len(docs), 5))
        for doc, embedding in zip(docs, embeddings, strict=True):
            doc.embedding = embedding
            doc.text = f"Embeddings calculated on {'GPU' if on_gpu else 'CPU'}"


class Sentence(BaseDoc):
    text: str
    embedding: NdArray | None = None  # type: ignore[type-arg]


class SentenceEncoder(Executor):
    """Eight numbers of a text's hash stand for a model."""

    @requests(on="/encode")
    def encode(self, docs: DocList[Sentence], **kwargs: Any) -> None:
        for doc in docs:
            hashed: Any = np.frombuffer(hashlib.blake2b(doc.text.encode(), digest_size=16).digest(), np.uint16) / np.float32(65535)
            doc.embedding = hashed


@pytest.mark.feature("EX-21", "EX-28", "DC-04")
@pytest.mark.parametrize(("library", "device"), [("numpy", "cpu"), ("torch", "cpu"), ("torch", "cuda")])
def test_t47_embeddings_on_the_device_that_was_asked_for(library: str, device: str) -> None:
    if library == "torch" and (torch := pytest.importorskip("torch")) and device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with Deployment(uses=MyGPUExec, uses_with={"device": device, "library": library}) as dep:
        docs = dep.post(on="/encode", inputs=DocList[Embedded]([Embedded()]), return_type=DocList[Embedded])
    assert docs.text == [f"Embeddings calculated on {'GPU' if device == 'cuda' else 'CPU'}"]
    assert np.stack([np.asarray(doc.embedding.cpu() if library == "torch" else doc.embedding) for doc in docs]).shape == (1, 5)


@pytest.mark.feature("CL-04", "CL-24")
def test_t48_ten_thousand_texts_in_requests_of_32_with_a_progress_bar(capfd: pytest.CaptureFixture[str]) -> None:
    texts = [f"text {number}" for number in range(10_000)]
    with Deployment(uses=SentenceEncoder, replicas=2) as dep:
        inputs = DocList[Sentence]([Sentence(text=text) for text in texts])
        found = dep.post("/encode", inputs, request_size=32, show_progress=True, results_in_order=True, return_type=DocList[Sentence])
    assert found.text == texts
    embeddings = np.stack([doc.embedding for doc in found])
    assert embeddings.shape == (10_000, 8) and len(np.unique(embeddings, axis=0)) == 10_000
    shown = capfd.readouterr()
    assert "313/313" in shown.out + shown.err  # 10,000 texts / 32
