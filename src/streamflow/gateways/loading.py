"""The class that `gateway: uses:` names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from streamflow.broker.errors import FlowError
from streamflow.workers.imports import import_all, import_named

from .base import Gateway


def find_gateway(uses: Any, py_modules: Sequence[str] = (), folders: Sequence[Path] = ()) -> type[Gateway]:
    """The class `uses`, or the one of that name in `py_modules`, or of a "module.Class". Raises `FlowError` when it is no `Gateway`."""
    modules = import_all(py_modules, folders, "gateway: py_modules")
    found = _named(uses, modules, folders) if isinstance(uses, str) else uses
    if not isinstance(found, type) or not issubclass(found, Gateway):
        name = getattr(found, "__name__", found)
        raise FlowError(f"gateway: uses: {name} does not derive from streamflow.Gateway")
    return found


def _named(uses: str, modules: Sequence[ModuleType], folders: Sequence[Path]) -> Any:
    if "://" in uses:
        raise FlowError(
            f"gateway: uses: {uses}: run the image as a service of its own: its command is `streamflow gateway --uses config.yml`"
        )
    module_name, _, name = uses.rpartition(".")
    modules = [import_named(module_name, folders)] if module_name else [*modules, sys.modules["__main__"]]
    found = next((value for module in modules if isinstance(value := getattr(module, name, None), type)), None)
    if found is None:
        hint = "" if module_name or len(modules) > 1 else "; list its file under py_modules, or write 'module.Class'"
        raise FlowError(f"gateway: uses: no gateway class {uses!r}{hint}")
    return found
