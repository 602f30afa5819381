"""Writes `descriptors.binpb` and the type stubs: `python -m streamflow.gateway.proto.generate`, with grpcio-tools installed."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).parent
_ALL = ("docarray.proto", "jina.proto", "shallow.proto", "streamflow.proto", "jobs.proto")
_TYPED = ("shallow.proto", "streamflow.proto", "jobs.proto")


def descriptors(target: Path) -> None:
    """Write the serialized FileDescriptorSet of all files and what they import."""
    _protoc("--include_imports", f"--descriptor_set_out={target}", *_ALL)


def stubs(folder: Path) -> None:
    """Write the `_pb2.pyi` files of the messages that our code uses."""
    _protoc(f"--pyi_out={folder}", *_TYPED)
    for name in _TYPED:
        stub = folder / name.replace(".proto", "_pb2.pyi")
        stub.write_text("# mypy: ignore-errors\n" + stub.read_text())  # protoc writes bare `Mapping`s


def _protoc(*arguments: str) -> None:
    from grpc_tools import protoc  # type: ignore[import-untyped]  # heavy, and only in the test extra

    failed = protoc.main(["protoc", f"-I{FOLDER}", f"-I{Path(protoc.__file__).with_name('_proto')}", *arguments])
    if failed:
        sys.exit(f"protoc ended with {failed}")


if __name__ == "__main__":
    descriptors(FOLDER / "descriptors.binpb")
    stubs(FOLDER)
