"""What a user installs: the wheel holds every file that the programs read, and none of ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile

import pytest

from streamflow.cli.export import PROTOS
from streamflow.templates import TEMPLATES

from .programs import ROOT

PARTS = ("src", "broker", "workers", "gateway", "pyproject.toml", "README.md")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel of the working tree."""
    folder = tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for part in PARTS:
        source = ROOT / part
        if source.is_dir():
            shutil.copytree(source, folder / part, symlinks=True, ignore=leave)
        else:
            shutil.copy(source, folder / part)
    words = ["-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps", "--wheel-dir", str(folder / "dist"), str(folder)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=110, check=False)
    if "Could not find a version" in done.stderr or "No matching distribution" in done.stderr:
        pytest.skip(f"pip cannot reach a package index for setuptools: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    [wheel] = (folder / "dist").glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_published_interfaces_are_in_it(contents: set[str]) -> None:
    assert {f"streamflow/gateway/proto/{name}" for name in PROTOS} <= contents


def test_every_template_is_complete(contents: set[str]) -> None:
    folder = ROOT / "src" / "streamflow" / "templates"
    written = {path.relative_to(folder).as_posix() for name in TEMPLATES for path in (folder / name).rglob("*") if path.is_file()}
    assert {f"streamflow/templates/{name}" for name in written if "__pycache__" not in name} <= contents


def test_every_file_of_the_package_is_in_it(contents: set[str]) -> None:
    package = ROOT / "src" / "streamflow"
    folders = [package, *(package / name for name in ("broker", "workers", "gateway"))]
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    missing = {f"streamflow/{path.relative_to(package).as_posix()}" for path in files} - contents
    assert not missing, "not in the wheel: add the suffix to package-data in pyproject.toml"


def test_nothing_else_is_installed(contents: set[str]) -> None:
    assert {name.partition("/")[0].partition("-")[0] for name in contents} == {"streamflow"}
