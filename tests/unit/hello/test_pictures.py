"""A folder of the user's own pictures: what is used, under which label, and what is said about the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL")

from PIL import Image

from streamflow.broker.errors import InvalidInput
from streamflow.hello.pictures import OWN_SIDE, Sample, label_of, own, split


def save(path: Path, mode: str = "L", size: tuple[int, int] = (30, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size).save(path)


def fill(folder: Path, number: int = 12) -> None:
    for at in range(number):
        save(folder / f"cat_{at}.png")


@pytest.mark.parametrize(
    ("name", "label"),
    [("dogs/a.png", "dogs"), ("dogs/old/a.png", "dogs"), ("cat_01.png", "cat"), ("7-b.png", "7"), ("cat12.png", "cat"), ("42.png", "42")],
)
def test_labels_come_from_the_sub_folder_or_the_start_of_the_name(name: str, label: str) -> None:
    assert label_of(Path("top") / name, Path("top")) == label


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("size", [(1, 1), (300, 7), (24, 24)])
def test_every_kind_and_size_of_png_is_resized(tmp_path: Path, mode: str, size: tuple[int, int]) -> None:
    fill(tmp_path, 11)
    save(tmp_path / "odd_one.png", mode, size)
    samples, skipped = own(tmp_path)
    assert (len(samples), skipped) == (12, [])
    assert {sample.pixels.shape for sample in samples} == {(OWN_SIDE, OWN_SIDE)}
    assert {sample.pixels.dtype for sample in samples} == {np.dtype(np.uint8)}


def test_transparent_pictures_stand_on_white(tmp_path: Path) -> None:
    fill(tmp_path, 11)
    Image.new("RGBA", (24, 24), (0, 0, 0, 0)).save(tmp_path / "clear_1.png")
    clear = next(sample for sample in own(tmp_path)[0] if sample.label == "clear")
    assert clear.pixels.min() == 255


def test_broken_and_foreign_files_are_skipped_with_a_reason(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "torn_1.png").write_bytes((tmp_path / "cat_0.png").read_bytes()[:40])
    (tmp_path / "_hidden.png").write_bytes((tmp_path / "cat_0.png").read_bytes())
    samples, skipped = own(tmp_path)
    assert len(samples) == 12
    reasons = {one.path.name: one.reason for one in skipped}
    assert "not a picture file" in reasons["notes.txt"]
    assert "cannot be read" in reasons["torn_1.png"]
    assert "no label" in reasons["_hidden.png"]


def test_a_missing_or_nearly_empty_folder_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no such folder"):
        own(tmp_path / "nowhere")
    fill(tmp_path, 3)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InvalidInput, match=r"3 usable pictures, at least 12 are needed \(a\.txt: not a picture file"):
        own(tmp_path)


def test_no_picture_is_both_indexed_and_asked_for() -> None:
    samples = [Sample(str(at), "x", np.zeros((2, 2), np.uint8)) for at in range(60)]
    stored, asked = split(samples)
    assert len(stored) == 50
    assert {one.name for one in stored}.isdisjoint(one.name for one in asked)
