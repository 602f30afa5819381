"""Projects to start from: `streamflow new`. Each folder here is one, with the name `project-name` where the user's is put."""

from __future__ import annotations

import difflib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from streamflow.broker.errors import InvalidInput

NAME = "project-name"


@dataclass(frozen=True, slots=True)
class Template:
    """What it makes, and the command that serves it."""

    about: str
    serve: str


TEMPLATES = {
    "flow": Template("a flow of executors behind a gateway", "streamflow flow --uses flow.yml"),
    "executor": Template("one executor behind a gateway", "streamflow deployment --uses deployment.yml"),
    "batch": Template("a file of inputs, a flow that works on them, a file of results", "streamflow flow --uses flow.yml"),
}
ALIASES = {"deployment": "executor"}  # as in Jina's `new --type=deployment`
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


def find(template: str) -> str:
    """The template that `template` means. Raises `InvalidInput` with the nearest name."""
    found = ALIASES.get(template, template)
    if found not in TEMPLATES:
        close = difflib.get_close_matches(template, [*TEMPLATES, *ALIASES], n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(TEMPLATES)}"
        raise InvalidInput(f"no such template {template!r}; {hint}")
    return found


def create(folder: Path, template: str) -> list[Path]:
    """Write the project into `folder`, which must not exist yet, and return its files.

    Raises `InvalidInput` for a folder that is there, a name that no flow can have, or an unknown template; then nothing is written.
    """
    name = find(template)
    if not _NAME.fullmatch(folder.name):
        raise InvalidInput(f"{folder.name!r} cannot be a flow's name: letters, digits, '_' and '-', at most 64")
    if folder.exists():
        raise InvalidInput(f"{folder} is there already: choose another name, or remove it")
    with as_file(files(__package__).joinpath(name)) as source:
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__"), copy_function=_filled(folder.name))
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _filled(name: str) -> Callable[[str, str], None]:
    """A copy function that puts `name` in."""

    def copy(source: str, target: str) -> None:
        Path(target).write_text(Path(source).read_text("utf-8").replace(NAME, name), "utf-8")

    return copy
