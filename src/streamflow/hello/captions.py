"""The data of `hello multimodal`: scikit-learn's handwritten digits, each with a caption that is a riddle about the number.

A caption names two of four facts, so it fits two or three numbers; a picture is sometimes read wrongly. Each knows what the other does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .pictures import Sample

SEED = 11
FACTS_PER_CAPTION = 2
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_LETTERS = {3: "three letters", 4: "four letters", 5: "five letters"}
_PRIMES = {2, 3, 5, 7}


@dataclass(frozen=True, slots=True)
class Captioned:
    """One picture with its caption."""

    sample: Sample
    caption: str


def facts(number: int) -> tuple[str, ...]:
    """All that a caption may say about `number` (0..9)."""
    size = "below four" if number < 4 else "from four to six" if number < 7 else "above six"
    return (
        "odd" if number % 2 else "even",
        size,
        "prime" if number in _PRIMES else "nonprime",
        _LETTERS[len(_NAMES[number])],
    )


def captioned(samples: list[Sample]) -> list[Captioned]:
    """`samples` of digits with captions, the same for the same list."""
    random = np.random.default_rng(SEED)
    return [Captioned(sample, _caption(int(sample.label), random)) for sample in samples]


def _caption(number: int, random: np.random.Generator) -> str:
    known = facts(number)
    return ", ".join(known[at] for at in random.permutation(len(known))[:FACTS_PER_CAPTION])
