"""A gateway's own YAML file (`config.yml`: class, constructor arguments, `port`, `protocol` ...), and what it adds to `gateway:`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streamflow.broker.errors import FlowError
from streamflow.broker.yaml_tree import parse, read
from streamflow.broker.yaml_variables import resolve

from .build import YAML_SUFFIXES
from .check import check_tree
from .models import ExecutorFile, GatewayFile


def unfolded(given: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """`given` with the class of a file, or of an inline mapping, in `uses`; what `given` says wins over what the file says.

    Raises `FlowError` with file and line.
    """
    uses = given.get("uses")
    if isinstance(uses, ExecutorFile):
        return _over(_of_inline(uses), given)
    if not isinstance(uses, str) or not (uses.endswith(YAML_SUFFIXES) or "\n" in uses or uses.startswith("!")):
        return dict(given)
    return _over(_of_text(uses, [folder, *(folder / path for path in given.get("extra_search_paths", ()))]), given)


def _of_inline(uses: ExecutorFile) -> dict[str, Any]:
    inner = uses.given()
    wrong = next((name for name in inner if name not in ("jtype", "version", "arguments", "py_modules", "workspace", "metas")), None)
    if wrong is not None:
        raise FlowError(f"gateway: uses: {wrong}: a gateway has no such thing")
    return {"uses": inner["jtype"], "uses_with": inner.get("arguments", {}), "py_modules": inner.get("py_modules", [])}


def _of_text(uses: str, places: list[Path]) -> dict[str, Any]:
    inline = "\n" in uses or uses.startswith("!")
    path = None if inline else next((place / uses for place in places if (place / uses).is_file()), None)
    if not inline and path is None:
        raise FlowError(f"gateway: uses: no file {uses!r} in {', '.join(map(str, places))}")
    file = check_tree(GatewayFile, resolve(parse(uses) if path is None else read(path), {}))
    inner = file.given()
    inner.pop("version", None)
    home = path.resolve().parent if path else Path()
    modules = [str(home / name) if (home / name).exists() else name for name in inner.pop("py_modules", ())]
    return {"uses": inner.pop("jtype"), "py_modules": modules, **inner}


def _over(file: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: value for name, value in given.items() if name != "uses"}
    return {
        **file,
        **own,
        "uses_with": {**file.get("uses_with", {}), **own.get("uses_with", {})},
        "py_modules": [*file.get("py_modules", ()), *own.get("py_modules", ())],
    }
