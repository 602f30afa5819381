"""`import streamflow`: what it offers, and what it must not cost."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import streamflow

SOURCE = Path(__file__).parents[2] / "src"
HEAVY = ("docarray", "numpy", "torch", "fastapi", "grpc", "nats", "pydantic", "uvicorn")


def test_importing_the_package_is_cheap() -> None:
    program = (
        "import sys, time; start = time.process_time(); import streamflow;"
        f"print(time.process_time() - start, [name for name in {HEAVY} if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    cpu_s, loaded = done.stdout.split(maxsplit=1)
    assert loaded.strip() == "[]"
    assert float(cpu_s) < 0.25


def test_an_asynchronous_grpc_client_loads_only_what_it_uses() -> None:
    unused = ("nats", "fastapi", "uvicorn", "aiohttp", "uvloop", "rich.progress", "google.protobuf.json_format")
    program = (
        "import sys; from streamflow import Client; Client('127.0.0.1', 1, asyncio=True);"
        f"print([name for name in {unused} if name in sys.modules], 'grpc' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[] True"


@pytest.mark.parametrize("name", streamflow.__all__)
def test_every_public_name_has_a_home_that_exists(name: str) -> None:
    assert getattr(streamflow, name) is not None


def test_names_for_type_checkers_are_the_public_names() -> None:
    tree = ast.parse(inspect.getsource(streamflow))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    imported = [alias.name for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert sorted([*imported, "__version__"]) == sorted(streamflow.__all__)
    assert set(streamflow.__all__) <= set(dir(streamflow))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'streamflow' has no attribute 'Gatewayy'"):
        streamflow.Gatewayy  # noqa: B018
