"""Which files a flow was made of, and which of them have changed since the last look (`reload=True`).

Looking is a `stat` of each file a few times a second, in the supervisor itself: a watching thread would end its forking.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config.spec import ExecutorSpec

LOOK_S = 0.25
MAX_FILES = 5000  # per executor: a virtual environment that somebody keeps in the folder must not be looked at for ever
_YAML = (".yml", ".yaml", ".jaml", ".json")
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+\Z")

Stamps = dict[str, tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class Sources:
    """Files of one executor, or ("" as `part_of`) of the flow: `configs` are YAML, below `folders` every Python file counts."""

    part_of: str
    configs: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()

    def stamps(self) -> Stamps:
        """Modification time (ns), size and inode by file; a file that is not there has none."""
        found: Stamps = {}
        for path in [*self.configs, *_python_files(self.folders)]:
            try:
                stat = os.stat(path)
            except OSError:
                continue
            found[path] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        return found


def sources_of(spec: ExecutorSpec) -> Sources:
    """Where the executor comes from: its YAML file, and the folders of its Python files."""
    folder = spec.folder.absolute()
    places = [folder, *map(Path, spec.extra_search_paths)]
    configs: list[Path] = []
    files: list[Path] = []
    uses: Any = spec.uses
    if isinstance(uses, type):
        files += _of_class(uses)
    elif isinstance(uses, Mapping):
        files += _found(uses.get("py_modules") or (), places)
    elif isinstance(uses, str) and "\n" not in uses and (named := _found([uses], places)):
        config = named[0] / "config.yml" if named[0].is_dir() else named[0]
        configs += [config] if config.suffix in _YAML else []
        files.append(config)
    elif isinstance(uses, str) and _DOTTED.match(uses):
        files += _found([uses.rpartition(".")[0].replace(".", "/") + ".py", uses.split(".")[0]], places)
    files += _found(spec.py_modules, places)
    folders = dict.fromkeys(str(file if file.is_dir() else file.parent) for file in files)
    return Sources(spec.name, tuple(map(str, configs)), tuple(folders))


def _of_class(kind: type) -> list[Path]:
    """The file of a class that its process imports; one of the script itself travels as it was."""
    try:
        file = inspect.getsourcefile(kind) if kind.__module__ != "__main__" else None
    except TypeError:
        return []
    return [Path(file)] if file else []


def _found(names: Iterable[str], places: Iterable[Path]) -> list[Path]:
    listed = [names] if isinstance(names, str) else list(names)
    return [path for name in listed for path in [place / Path(name).expanduser() for place in places] if path.exists()]


def _python_files(folders: Iterable[str]) -> Iterator[str]:
    left = MAX_FILES
    for folder in folders:
        for path, inner, names in os.walk(folder):
            inner[:] = [name for name in inner if name not in _SKIPPED and not name.startswith(".") and not _is_environment(path, name)]
            python = [name for name in names if name.endswith(".py")]
            yield from (os.path.join(path, name) for name in python)
            left -= len(python)
            if left <= 0:
                return


def _is_environment(path: str, name: str) -> bool:
    return os.path.exists(os.path.join(path, name, "pyvenv.cfg"))


@dataclass(frozen=True, slots=True)
class Change:
    """Files of one `Sources` that were written, added or removed."""

    sources: Sources
    files: tuple[str, ...]

    @property
    def config(self) -> str | None:
        """The YAML file among them."""
        return next((file for file in self.files if file in self.sources.configs), None)


@dataclass(slots=True)
class Changes:
    """Looks at `sources` again and again. A change counts once nothing more changed until the next look: editors write in several steps."""

    sources: tuple[Sources, ...]
    _known: dict[Sources, Stamps] = field(default_factory=dict)
    _seen: dict[Sources, Stamps] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known = {each: each.stamps() for each in self.sources}
        self._seen = dict(self._known)

    def replace(self, sources: tuple[Sources, ...]) -> None:
        """From now on look at these; what is known of the same ones stays."""
        self.sources = sources
        self._known = {each: self._known.get(each) or each.stamps() for each in sources}
        self._seen = {each: self._seen.get(each) or self._known[each] for each in sources}

    def look(self) -> list[Change]:
        return [change for each in self.sources if (change := self._look_at(each)) is not None]

    def _look_at(self, sources: Sources) -> Change | None:
        stamps = sources.stamps()
        settled, self._seen[sources] = stamps == self._seen[sources], stamps
        known = self._known[sources]
        if not settled or stamps == known:
            return None
        self._known[sources] = stamps
        return Change(sources, tuple(sorted(path for path in stamps.keys() | known.keys() if stamps.get(path) != known.get(path))))
