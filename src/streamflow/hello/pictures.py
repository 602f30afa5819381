"""Where the pictures of `hello digits` come from: scikit-learn's bundled digits, or a folder of the user's own."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from streamflow.broker.errors import InvalidInput

BUNDLED_INDEXED = 1500  # of 1,797
OWN_SIDE = 24  # pixels; the user's own pictures become grey squares of this size
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"}


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture before it is a document: `pixels` (side, side) uint8."""

    name: str
    label: str
    pixels: np.ndarray[Any, Any]


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was not used, and why."""

    path: Path
    reason: str


def bundled() -> list[Sample]:
    """The 1,797 handwritten digits that scikit-learn carries, 8 x 8 pixels, shuffled with a fixed seed."""
    try:
        from sklearn.datasets import load_digits  # heavy: 1 s, and an optional dependency
    except ImportError as error:
        raise InvalidInput("the bundled digits need scikit-learn: pip install 'streamflow[demo]'") from error
    data = load_digits()
    pixels = (data.images * 15).astype(np.uint8)  # 0..16 to 0..240
    samples = [Sample(f"digit-{at:04d}", str(label), pixels[at]) for at, label in enumerate(data.target)]
    return shuffled(samples)


def own(folder: Path) -> tuple[list[Sample], list[Skipped]]:
    """The pictures below `folder` and what was skipped. Raises `InvalidInput` when fewer than 12 can be used."""
    if not folder.is_dir():
        raise InvalidInput(f"--images {folder}: no such folder")
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found = _read(path, folder)
        if isinstance(found, Sample):
            samples.append(found)
        else:
            skipped.append(found)
    if len(samples) < 12:
        why = "; ".join(f"{one.path.name}: {one.reason}" for one in skipped[:3])
        raise InvalidInput(f"--images {folder}: {len(samples)} usable pictures, at least 12 are needed{' (' + why + ')' if why else ''}")
    return shuffled(samples), skipped


def split(samples: list[Sample]) -> tuple[list[Sample], list[Sample]]:
    """What is indexed and what is asked for: 5 of 6, for the bundled digits 1,500 and 297. No picture is in both."""
    cut = BUNDLED_INDEXED if len(samples) == 1797 else len(samples) * 5 // 6
    return samples[:cut], samples[cut:]


def shuffled(samples: list[Sample]) -> list[Sample]:
    order = np.random.default_rng(7).permutation(len(samples))
    return [samples[at] for at in order]


def to_matrix(samples: list[Sample]) -> np.ndarray[Any, Any]:
    """(n, pixels) float32 in 0..1, what the encoder is fitted on."""
    return np.stack([sample.pixels.ravel() for sample in samples]).astype(np.float32) / 255.0


def label_of(path: Path, folder: Path) -> str:
    """The sub-folder's name, else the file name up to the first `_`, `-`, space or dot; of `cat12` the letters."""
    inner = path.relative_to(folder)
    if len(inner.parts) > 1:
        return inner.parts[0]
    head = re.split(r"[-_ .]", path.stem, maxsplit=1)[0]
    letters = re.match(r"[^\W\d]+", head)
    return letters[0] if letters else head


def _read(path: Path, folder: Path) -> Sample | Skipped:
    if path.suffix.lower() not in SUFFIXES:
        return Skipped(path, "not a picture file (" + " ".join(sorted(SUFFIXES)) + ")")
    label = label_of(path, folder)
    if not label:
        return Skipped(path, "no label: put it into a sub-folder or name it label_something")
    try:
        return Sample(str(path.relative_to(folder)), label, _pixels(path))
    except Exception as error:  # a broken file may raise nearly anything in Pillow; it must not stop the others
        return Skipped(path, f"cannot be read: {error}")


def _pixels(path: Path) -> np.ndarray[Any, Any]:
    from PIL import Image, ImageOps  # an optional dependency

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened)
            picture = _sixteen_bit(picture) if picture.mode.startswith("I") else _on_white(picture)
            return np.asarray(ImageOps.pad(picture, (OWN_SIDE, OWN_SIDE), color=0), dtype=np.uint8)


def _on_white(picture: Any) -> Any:
    from PIL import Image  # an optional dependency

    layer = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("L")


def _sixteen_bit(picture: Any) -> Any:
    """Pillow clips 16-bit greys to white when it converts; scale them instead."""
    from PIL import Image  # an optional dependency

    values = np.asarray(picture, dtype=np.float64)
    return Image.fromarray((values * (255.0 / max(values.max(), 1.0))).clip(0, 255).astype(np.uint8))
