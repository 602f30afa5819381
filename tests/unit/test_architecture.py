"""Which folder may know which, read from the imports by `ast`: nothing is imported here but the package itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import streamflow

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("broker", "workers", "gateway")
PACKAGE = "src/streamflow"

# Our own modules that a function imports, because they are heavy and not every process needs them; each says so where it stands.
LAZY = {
    ("gateway/auth.py", "streamflow.gateway.auth_jwt"),
    ("gateway/http_app.py", "streamflow.gateway.graphql_app"),
    ("gateway/listening.py", "streamflow.gateway.admin"),
    ("gateway/listening.py", "streamflow.gateway.http_app"),
    ("gateway/listening.py", "streamflow.gateway.http_server"),
    ("gateway/listening.py", "streamflow.gateway.grpc_server"),
    ("gateway/listening.py", "streamflow.gateway.jobs_http"),
    ("src/streamflow/orchestration.py", "streamflow.client"),
    ("src/streamflow/orchestration.py", "streamflow.export.docker_compose"),
    ("src/streamflow/orchestration.py", "streamflow.runtime"),
    ("src/streamflow/client/sync_client.py", "streamflow.client.letters"),
    ("src/streamflow/crud.py", "streamflow.client.readers"),
    ("src/streamflow/plan.py", "streamflow.broker.accounts"),
    ("src/streamflow/plan.py", "streamflow.broker.server"),
    ("src/streamflow/plan.py", "streamflow.broker.settings"),
    ("src/streamflow/plan.py", "streamflow.origin"),
    ("src/streamflow/probes.py", "streamflow.roll_call"),
    ("src/streamflow/spawn.py", "streamflow.pickling"),
    ("src/streamflow/cli/version.py", "streamflow.broker.settings"),
    ("src/streamflow/cli/worker.py", "streamflow.workers.service"),
    ("broker/codec/__init__.py", "streamflow.broker.codec.forms"),
    ("workers/executor.py", "streamflow.workers.loader"),
}
# One of several is loaded: a protocol, the process that this one becomes.
LAZY_FILES = ("src/streamflow/client/base.py", "src/streamflow/tasks.py")
RE_IMPORTED = ("src/streamflow/spawn.py",)  # run by -m: imports itself under its real name


@dataclass(frozen=True)
class Import:
    file: str
    line: int
    module: str  # absolute
    in_function: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.module}"


def python_files() -> list[Path]:
    return [file for folder in (*FOLDERS, PACKAGE) for file in sorted((ROOT / folder).rglob("*.py"))]


def package_of(file: Path) -> list[str]:
    """Dotted name of the package that `file` belongs to, in parts; the folders are links into the package."""
    relative = file.relative_to(ROOT).parent
    inside = relative.parts[2:] if relative.parts[:2] == ("src", "streamflow") else relative.parts
    return ["streamflow", *inside]


def imports(file: Path) -> Iterator[Import]:
    """Every import of `file`, those for type checkers only left out."""
    shown = file.relative_to(ROOT).as_posix()
    package = package_of(file)

    def walk(node: ast.AST, in_function: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            yield from (Import(shown, node.lineno, name.name, in_function) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield Import(shown, node.lineno, module, in_function)
            yield from (Import(shown, node.lineno, f"{module}.{name.name}", in_function) for name in node.names)
        inner = in_function or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inner)

    yield from walk(ast.parse(file.read_text(encoding="utf-8")), False)


ALL = [one for file in python_files() for one in imports(file)]


def of(folder: str) -> list[Import]:
    return [one for one in ALL if one.file.startswith(f"{folder}/")]


def ours(one: Import) -> bool:
    return one.module == "streamflow" or one.module.startswith("streamflow.")


def within(one: Import, *packages: str) -> bool:
    return any(one.module == f"streamflow.{package}" or one.module.startswith(f"streamflow.{package}.") for package in packages)


def top(one: Import) -> str:
    return one.module.partition(".")[0]


def test_the_imports_are_found() -> None:
    assert len(ALL) > 500
    assert any(one.module == "nats.errors" for one in of("broker"))
    assert any(within(one, "broker.envelope") for one in of("workers"))


@pytest.mark.parametrize(
    ("folder", "may_know"), [("broker", ("broker",)), ("workers", ("broker", "workers")), ("gateway", ("broker", "gateway"))]
)
def test_folders_know_only_those_below(folder: str, may_know: tuple[str, ...]) -> None:
    # `from streamflow import broker` names the package on the way to the folder.
    wrong = [one for one in of(folder) if ours(one) and one.module != "streamflow" and not within(one, *may_know)]
    assert not wrong, "\n".join(map(str, wrong))


def test_only_the_broker_folder_imports_nats() -> None:
    wrong = [one for one in ALL if top(one) == "nats" and not one.file.startswith("broker/")]
    assert not wrong, "\n".join(map(str, wrong))


def test_the_gateway_never_imports_documents_or_arrays() -> None:
    wrong = [one for one in of("gateway") if top(one) in ("docarray", "numpy", "torch") or within(one, "broker.codec")]
    assert not wrong, "\n".join(map(str, wrong))


def test_torch_is_never_imported() -> None:
    wrong = [one for one in ALL if top(one) in ("torch", "tensorflow", "jax")]
    assert not wrong, "\n".join(map(str, wrong))


def test_nobody_unpickles_but_the_private_pipes() -> None:
    allowed = {f"{PACKAGE}/{name}.py" for name in ("assignment", "pickling", "runtime", "spawn")}
    wrong = [one for one in ALL if top(one) in ("pickle", "cloudpickle", "dill", "shelve", "marshal") and one.file not in allowed]
    assert not wrong, "\n".join(map(str, wrong))


def test_own_modules_are_imported_at_the_top() -> None:
    inner = [one for one in ALL if ours(one) and one.in_function and not one.file.startswith(LAZY_FILES)]
    modules = {(one.file, one.module) for one in inner if one.file not in RE_IMPORTED or "spawn" not in one.module}
    unlisted = {(file, module) for file, module in modules if not any(file == lazy and _same(module, name) for lazy, name in LAZY)}
    assert not unlisted, "imported inside a function, and not listed as heavy"
    assert modules >= LAZY, "listed, and not imported inside a function any more"


def _same(module: str, listed: str) -> bool:
    """The listed module, a name of it, or a package on the way to it."""
    return module == listed or module.startswith(f"{listed}.") or listed.startswith(f"{module}.")


def test_relative_imports_stay_inside_their_folder() -> None:
    wrong = []
    for file in python_files():
        folder = package_of(file)[1:2]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level and folder and folder[0] in FOLDERS and node.level >= len(package_of(file)):
                wrong.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert not wrong, "\n".join(wrong)


def test_the_folders_are_links_into_the_package() -> None:
    for folder in FOLDERS:
        link = ROOT / PACKAGE / folder
        assert link.is_symlink() and link.readlink() == Path(f"../../{folder}")


def test_every_exported_name_is_there_and_no_other() -> None:
    assert streamflow.__all__ == [
        "Executor", "requests", "dynamic_batching", "write", "Flow", "Deployment", "Client", "Gateway",
        "StreamflowError", "InvalidInput", "FlowError", "NotFound", "Unauthenticated", "PermissionDenied", "DeadlineExceeded", "Cancelled",
        "Overloaded", "TooLarge", "Unavailable", "Quarantined", "ExecutorError", "RuntimeFailToStart", "Status", "Code",
        "__version__",
    ]  # fmt: skip
    for name in streamflow.__all__:
        assert getattr(streamflow, name) is not None
    assert set(streamflow.__all__) <= set(dir(streamflow))


def test_the_package_costs_nothing_until_it_is_used() -> None:
    heavy = "docarray", "numpy", "grpc", "fastapi", "uvicorn", "aiohttp", "nats", "pydantic", "torch", "yaml"
    code = f"import sys, streamflow; print(*[name for name in {heavy!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=ROOT / "src")
    assert found.stdout.split() == []


def test_a_client_loads_no_broker_client() -> None:
    code = "import sys, streamflow.client; print('nats' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout == "False\n"
