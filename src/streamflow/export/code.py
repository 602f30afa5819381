"""Where the code of an executor comes from in a container: an image, or an image built of the folder in which its files lie."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from streamflow.broker.errors import FlowError
from streamflow.config.spec import ExecutorSpec

from .compose import Interpolated

BASE_IMAGE = Interpolated("${STREAMFLOW_IMAGE:-streamflow:local}")
HOME = "/executor"  # the working directory of the base image
DOCKERFILE = """\
FROM {image}
COPY . {home}
"""
REQUIREMENTS = """\
USER root
RUN pip install --no-cache-dir --requirement {home}/requirements.txt
USER 10001:10001
"""


@dataclass(frozen=True, slots=True)
class Code:
    """Image or build section, and the worker's command line. `command` () = the image knows its executor itself."""

    image: str = ""
    build: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()


def code_of(spec: ExecutorSpec, target: Path) -> Code:
    """The code of an executor for a file in folder `target`. Raises `FlowError` naming the executor for what no image can be made of."""
    uses = spec.uses
    if isinstance(uses, str) and "://" in uses and "\n" not in uses:
        return Code(image=_image(uses, spec.name))
    if isinstance(uses, type):
        return _of_class(uses, spec, target)
    if isinstance(uses, Mapping):
        return _of_mapping(uses, spec, target)
    path = Path(uses) if uses and "\n" not in uses and os.path.isabs(uses) else None
    if path is not None:
        files = _Files(spec, [path, *_paths(spec.py_modules)], path.parent)
        return files.code(files.inside(path), target)
    text = uses or "BaseExecutor"
    if not uses or text.startswith("streamflow."):
        return Code(image=BASE_IMAGE, command=("worker", "--uses", text))
    return _Files(spec, _paths(spec.py_modules), spec.folder).code(text, target)


class _Files:
    """The files of one executor, and the folder that holds them all: the build context."""

    def __init__(self, spec: ExecutorSpec, files: Sequence[Path], preferred: Path) -> None:
        self._spec = spec
        folders = [preferred.resolve(), spec.folder.resolve()]
        found = next((folder for folder in folders if all(each.resolve().is_relative_to(folder) for each in files)), None)
        if found is None:
            outside = next(each for each in files if not each.resolve().is_relative_to(folders[-1]))
            raise FlowError(f"executor {spec.name!r}: {outside} is outside of {folders[-1]}, of which the image is built")
        self.context = found

    def inside(self, path: Path) -> str:
        """Where a file of the context is in the container."""
        return f"{HOME}/{path.resolve().relative_to(self.context).as_posix()}"

    def module(self, name: str) -> str:
        """A `py_modules` entry: a file of the context, or the name of a module."""
        return self.inside(Path(name)) if os.path.isabs(name) else name

    def code(self, uses: str, target: Path) -> Code:
        build: dict[str, Any] = {"context": relative(self.context, target)}
        if (self.context / "Dockerfile").is_file():
            return Code(build=build)
        text = DOCKERFILE + (REQUIREMENTS if (self.context / "requirements.txt").is_file() else "")
        build["dockerfile_inline"] = Interpolated(text.format(image=BASE_IMAGE, home=HOME))
        modules = [part for each in self._spec.py_modules for part in ("--py-modules", self.module(each))]
        return Code(build=build, command=("worker", "--uses", uses, *modules))


def _of_class(kind: type, spec: ExecutorSpec, target: Path) -> Code:
    name = f"executor {spec.name!r}: {kind.__qualname__}"
    if "<locals>" in kind.__qualname__:
        raise FlowError(f"{name} is defined within a function; move it to the top of its module")
    module = sys.modules[kind.__module__]
    file = getattr(module, "__file__", None)
    if file is None:
        raise FlowError(f"{name} was not defined in a file, so that no image can be made of it")
    if module.__name__ == "streamflow" or module.__name__.startswith("streamflow."):
        return Code(image=BASE_IMAGE, command=("worker", "--uses", f"{module.__name__}.{kind.__qualname__}"))
    root = _root_of(module, Path(file).resolve())
    files = _Files(spec, [root, *_paths(spec.py_modules)], root)
    if module.__name__ == "__main__":
        made = files.code(kind.__qualname__, target)
        return Code(made.image, made.build, (*made.command, "--py-modules", files.inside(Path(file))) if made.command else ())
    return files.code(f"{module.__name__}.{kind.__qualname__}", target)


def _root_of(module: ModuleType, file: Path) -> Path:
    """The folder from which `module` is imported by its name."""
    depth = 0 if module.__name__ == "__main__" else module.__name__.count(".") + (file.name == "__init__.py")
    return file.parents[depth]


def _of_mapping(uses: Mapping[str, Any], spec: ExecutorSpec, target: Path) -> Code:
    modules = [str(each) for each in uses.get("py_modules", ())]
    files = _Files(spec, [*_paths(modules), *_paths(spec.py_modules)], spec.folder)
    inline = {**uses, **({"py_modules": [files.module(each) for each in modules]} if modules else {})}
    return files.code(to_json(inline, f"executor {spec.name!r}: uses"), target)


def _image(uses: str, name: str) -> str:
    scheme, _, image = uses.partition("://")
    if scheme != "docker" or not image:
        raise FlowError(f"executor {name!r}: uses: {uses}: only docker:// names an image; the hub is gone")
    return image


def _paths(names: Sequence[str]) -> list[Path]:
    return [Path(name) for name in names if os.path.isabs(name)]


def relative(path: Path, target: Path) -> str:
    """`path` as Compose wants it in a file in folder `target`: with a leading dot, else it would be the name of a volume."""
    text = Path(os.path.relpath(path.resolve(), target.resolve())).as_posix()
    return text if text.startswith(".") else f"./{text}"


def to_json(value: Any, what: str) -> str:
    """JSON text. Raises `FlowError` for Python objects."""
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise FlowError(f"{what}: cannot be written down: {error}") from None
