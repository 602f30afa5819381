"""Message classes out of `descriptors.binpb`, in a descriptor pool of our own.

`generate.py` writes that file from the `.proto` files here. No generated `_pb2` code: that would put `jina.*` and `docarray.*` into the
default pool of a process that may hold the originals too (a name can be registered only once), and would tie us to one protobuf generation;
a serialized descriptor set reads the same under protobuf 5, 6 and 7.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass


def _load() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(Path(__file__).with_name("descriptors.binpb").read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


POOL = _load()


def message(name: str) -> Any:
    """The class of the message with full name `name`."""
    return GetMessageClass(POOL.FindMessageTypeByName(name))
