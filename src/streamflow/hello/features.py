"""What the demonstrations compare: pictures and captions as vectors of length 1. Plain numpy, no training but the fit below."""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from .pictures import bundled, split, to_matrix

Array = np.ndarray[Any, Any]
WORD_DIMENSIONS = 256
FILLERS = frozenset({"a", "an", "the", "from", "to", "is", "of", "with"})


class Components:
    """Principal components of flattened pictures, fitted once: no randomness, so all replicas agree."""

    def __init__(self, fit_file: str | Path | None = None, dimensions: int = 32) -> None:
        """`fit_file`: an `.npy` array (n, pixels) to fit on; without one the indexed part of the bundled digits."""
        sample = np.load(fit_file, allow_pickle=False) if fit_file else to_matrix(split(bundled())[0])
        self._mean = sample.mean(axis=0)
        _, _, axes = np.linalg.svd(sample - self._mean, full_matrices=False)
        self._axes = axes[:dimensions].T.astype(np.float32)

    def vectors(self, pictures: list[Any]) -> Array:
        """(n, dimensions) float32 of n pictures (height, width) uint8."""
        flat = np.stack([np.asarray(each, dtype=np.float32).ravel() for each in pictures]) / 255.0
        return unit((flat - self._mean) @ self._axes)


def word_vector(text: str) -> Array:
    """(256,) float32: how often each word is in `text`, at a place that the word's checksum gives. Of no words: zeros."""
    counts = np.zeros(WORD_DIMENSIONS, dtype=np.float32)
    for word in re.findall(r"\w+", text.lower()):
        if word not in FILLERS:
            counts[zlib.crc32(word.encode()) % WORD_DIMENSIONS] += 1.0
    return unit(counts)


def unit(vectors: Array) -> Array:
    """`vectors` (..., d) as float32 of length 1; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / (length + 1e-12), dtype=np.float32)
