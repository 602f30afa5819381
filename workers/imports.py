"""Python files and modules that hold executor classes: `py_modules` and the module part of `'module.Class'`."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType

from streamflow.broker.errors import FlowError, RuntimeFailToStart

_NOT_THEIRS = ("<frozen", __file__, importlib.__file__)  # what an import goes through on its way to a user's file


def find_file(name: str, folders: Iterable[Path]) -> Path | None:
    """The file or folder `name`, absolute or in the first of `folders` that has it."""
    candidates = (folder / Path(name).expanduser() for folder in folders)
    return next((path.resolve() for path in candidates if path.exists()), None)


def import_all(py_modules: Sequence[str], folders: Sequence[Path], where: str) -> list[ModuleType]:
    """Import files (`executor.py`, `executor/__init__.py`, a package folder) and dotted module names, in order.

    Raises `FlowError` starting with `where` for a file that is not there, `RuntimeFailToStart` for one that cannot be imported.
    """
    return [_import(name, folders, where) for name in py_modules]


def import_file(path: Path) -> ModuleType:
    """The module in `path`; an `__init__.py` is imported as its package, so that relative imports work inside it.

    Its folder joins the end of `sys.path`, so that files listed together can import one another. A file already loaded is not run again.
    """
    is_package = path.name == "__init__.py"
    home = path.parent.parent if is_package else path.parent
    name = re.sub(r"\W", "_", path.parent.name if is_package else path.stem)
    _add_to_path(home)
    of_its_own = f"{name}_{sha256(str(path).encode()).hexdigest()[:8]}"
    if (module := _loaded(path, name, of_its_own, _dotted(path), "__main__")) is not None:
        return module
    if name in sys.modules or not _finds(name, path):  # two folders may both have an `executor` package
        name = of_its_own
    return _execute(name, path, is_package)


def import_named(name: str, folders: Iterable[Path] = ()) -> ModuleType:
    """The module `name`, also from `folders`. Raises `RuntimeFailToStart` when it, or something that it imports, fails."""
    for folder in folders:
        _add_to_path(folder)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _import(name: str, folders: Sequence[Path], where: str) -> ModuleType:
    path = find_file(name, folders)
    if path is not None and path.is_dir():
        path = path / "__init__.py" if (path / "__init__.py").is_file() else None
    if path is not None:
        return import_file(path)
    if re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)*", name) and not name.endswith(".py"):
        return import_named(name, folders)
    raise FlowError(f"{where}: no file {name!r} in {', '.join(dict.fromkeys(map(str, folders)))}")


def _loaded(path: Path, *names: str) -> ModuleType | None:
    """The module of `path` if it is loaded under one of `names`.

    Only those that it can have: a look at each of `sys.modules` would give a forked worker its own copy of pages that it shares.
    """
    modules = (sys.modules.get(name) for name in names)
    return next((module for module in modules if module is not None and getattr(module, "__file__", None) == str(path)), None)


def _dotted(path: Path) -> str:
    """The name by which `path` is imported from the folder in which its outermost package lies."""
    parts = [] if path.name == "__init__.py" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        parts.append(folder.name)
        folder = folder.parent
    return ".".join(reversed(parts))


def _execute(name: str, path: Path, is_package: bool) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[str(path.parent)] if is_package else None)
    if spec is None or spec.loader is None:
        raise FlowError(f"{path}: not a Python file")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise _broken(str(path), error) from error
    return module


def _finds(name: str, path: Path) -> bool:
    """Whether `import name` would give this very file: then the module can be imported again under that name, also when unpickling."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin == str(path)


def _add_to_path(folder: Path) -> None:
    """At the end: a user's `types.py` must not hide the standard library's."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _broken(what: str, error: BaseException) -> RuntimeFailToStart:
    """Says file and line: of a syntax error itself, else where it was raised."""
    if isinstance(error, SyntaxError) and error.filename:
        return RuntimeFailToStart(f"{what} cannot be imported: {error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}")
    frames = [each for each in traceback.extract_tb(error.__traceback__) if not each.filename.startswith(_NOT_THEIRS)]
    where = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    return RuntimeFailToStart(f"{what} cannot be imported: {where}{type(error).__name__}: {error}")
