"""Tensors as bytes and back: numpy and torch, any shape and order, every dtype but objects and structures.

Form: `1 byte length of dtype | dtype | 1 byte order | 1 byte dims | dims x uint64 LE | raw elements`. `dtype` is numpy's string with byte
order (`<f4`, `>i8`, `<U3`) or the name of a torch-only one (`bfloat16`). Every array that comes out owns its memory and is writable; rows
of one stack share one buffer.
"""

from __future__ import annotations

import contextlib
import math
import re
import struct
import sys
from array import array as array_of
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..limits import MAX_DIMS

# dtypes that numpy lacks: sent as integers of the same width, name -> (numpy dtype, torch integer dtype)
_TORCH_ONLY = {
    "bfloat16": ("<i2", "int16"),
    "float8_e4m3fn": ("|u1", "uint8"),
    "float8_e5m2": ("|u1", "uint8"),
    "float8_e4m3fnuz": ("|u1", "uint8"),
    "float8_e5m2fnuz": ("|u1", "uint8"),
}
_DTYPE = re.compile(r"[<>|=](?:b1|[iu][1248]|f(?:2|4|8|12|16)|c(?:8|16|24|32)|[SU][1-9]\d{0,6}|[mM]8(?:\[\d{0,4}[a-zA-Z]{1,2}\])?)\Z")
_SAFE_KINDS = "biufcSUmM"
_MAX_CODE_POINT = 0x10FFFF


class Stack:
    """Tensors of n documents in one: `array` is `(n, *shape)`, numpy or torch."""

    __slots__ = ("array",)

    def __init__(self, array: Any) -> None:
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def rows(self) -> list[Any]:
        """n tensors that are views of the stack; a 0-d row stays a tensor."""
        if self.array.ndim == 1:
            return [self.array[index : index + 1].reshape(()) for index in range(len(self.array))]
        return list(self.array) if isinstance(self.array, np.ndarray) else [self.array[index] for index in range(len(self.array))]


def torch_module() -> Any:
    """torch if the process has imported it, else None: a worker that never asked for torch does not pay for it."""
    return sys.modules.get("torch")


def is_torch(value: Any) -> bool:
    torch = torch_module()
    # `Tensor` is missing while another thread is still in the middle of importing torch
    return torch is not None and isinstance(value, getattr(torch, "Tensor", ()))


def pack(value: Any) -> bytes:
    """The bytes of one numpy or torch tensor. Raises `TypeError` for dtypes that hold Python objects or structures."""
    name, array = to_numpy(value) if is_torch(value) else ("", value)
    fortran = array.ndim > 1 and array.flags.fnc
    head = _head(name or _dtype_name(array), array.shape, fortran)
    return head + array.tobytes("F" if fortran else "C")


def pack_stack(values: Sequence[Any]) -> bytes | None:
    """The bytes of one tensor `(n, *shape)`, or None when the n values are not tensors of one library, shape, dtype and C order."""
    first = values[0]
    if first.ndim >= MAX_DIMS:
        return None
    if is_torch(first):
        return _pack_torch_stack(values)
    if not isinstance(first, np.ndarray) or not first.size or (first.ndim > 1 and first.flags.fnc):
        return None
    dtype, shape = first.dtype, first.shape
    for value in values:
        if not isinstance(value, np.ndarray) or value.shape != shape or (value.dtype is not dtype and value.dtype != dtype):
            return None
    return b"".join((_head(_dtype_name(first), (len(values), *shape), False), *_buffers(values)))


def unpack(data: bytes, *, torch: bool = False) -> Any:
    """The tensor in `data`: numpy, or with `torch` a torch tensor where torch is loaded. Raises `ValueError` for anything malformed."""
    end = 1 + data[0]
    name = data[1:end].decode("ascii")
    fortran, dims = data[end], data[end + 1]
    if dims > MAX_DIMS or fortran > 1:
        raise ValueError(f"a tensor of {dims} dimensions, at most {MAX_DIMS} are read")
    shape = struct.unpack_from(f"<{dims}Q", data, end + 2)
    raw = memoryview(data)[end + 2 + 8 * dims :]
    if name in _TORCH_ONLY:
        return _torch_only(name, from_parts(_TORCH_ONLY[name][0], shape, raw, fortran=bool(fortran)))
    array = from_parts(name, shape, raw, fortran=bool(fortran))
    return _as_torch(array) if torch else array


def from_parts(dtype_name: str, shape: tuple[int, ...], raw: bytes | memoryview, *, fortran: bool = False) -> np.ndarray[Any, Any]:
    """A writable array of `shape` from raw elements. Raises `ValueError` unless the dtype is allowed and the sizes agree exactly."""
    dtype = _dtype(dtype_name)
    if len(shape) > MAX_DIMS:
        raise ValueError(f"a tensor of {len(shape)} dimensions, at most {MAX_DIMS} are read")
    if math.prod(shape) * dtype.itemsize != len(raw):
        raise ValueError(f"a tensor of shape {shape} and dtype {dtype_name} in {len(raw)} bytes")
    if not raw:
        return np.empty(shape, dtype)
    flat: np.ndarray[Any, Any] = np.frombuffer(bytearray(raw), dtype)
    return _checked(flat).reshape(shape, order="F" if fortran else "C")


def to_numpy(value: Any) -> tuple[str, np.ndarray[Any, Any]]:
    """A torch tensor from any device, detached, as numpy; the name is the torch dtype where numpy has none, else empty."""
    torch = torch_module()
    value = value.detach()
    value = (value.to_dense() if value.layout is not torch.strided else value).cpu().resolve_conj().resolve_neg()
    name = str(value.dtype).removeprefix("torch.")
    if name in _TORCH_ONLY:
        return name, value.contiguous().view(getattr(torch, _TORCH_ONLY[name][1])).numpy()
    return "", value.numpy()


def widened(value: Any) -> np.ndarray[Any, Any]:
    """Any tensor as numpy for formats that know numpy's dtypes only: torch-only floats become float32, which holds them exactly."""
    if not is_torch(value):
        return np.asarray(value if isinstance(value, np.ndarray) else value._docarray_to_ndarray())
    name = str(value.dtype).removeprefix("torch.")
    return to_numpy(value.float() if name in _TORCH_ONLY else value)[1]


def check_dtype(array: np.ndarray[Any, Any]) -> None:
    """Raise `TypeError` for dtypes whose raw elements mean nothing in another process."""
    if array.dtype.kind not in _SAFE_KINDS:
        raise TypeError(f"a tensor of dtype {array.dtype} cannot be sent")


def from_lists(value: Any) -> np.ndarray[Any, Any]:
    """A tensor from nested lists of numbers, booleans or strings; a bare number is a 0-d tensor, null stands for NaN.

    Raises `ValueError`.
    """
    if isinstance(value, str | dict):
        raise ValueError("Input should be nested lists of numbers")
    if isinstance(value, list) and value and type(value[0]) is float:  # an embedding: half the time of asarray
        with contextlib.suppress(TypeError, OverflowError):
            return np.frombuffer(array_of("d", value))
    try:
        array = np.asarray(value)
        if array.dtype.kind == "O":  # null (NaN has no JSON form) or integers above 64 bits, else a TypeError
            array = np.asarray(value, dtype=np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise ValueError("Input should be nested lists of numbers, equally long at each level") from error
    if array.ndim > MAX_DIMS:
        raise ValueError(f"a tensor of {array.ndim} dimensions, at most {MAX_DIMS} are read")
    return array


def to_lists(array: np.ndarray[Any, Any]) -> Any:
    """Nested lists; complex numbers as pairs `[real, imaginary]`, which JSON readers get as a last axis of 2."""
    if array.dtype.kind == "c":
        array = np.stack((array.real, array.imag), axis=-1)
    return array.astype(str).tolist() if array.dtype.kind in "SmM" else array.tolist()


@lru_cache(maxsize=256)
def _dtype(name: str) -> np.dtype[Any]:
    if not _DTYPE.match(name):
        raise ValueError(f"a tensor of dtype {name[:20]!r} is not read")
    try:
        return np.dtype(name)
    except TypeError as error:  # widths this platform lacks
        raise ValueError(str(error)) from error


@lru_cache(maxsize=1024)
def _head(dtype_name: str, shape: tuple[int, ...], fortran: bool) -> bytes:
    name = dtype_name.encode("ascii")
    return struct.pack(f"<B{len(name)}sBB{len(shape)}Q", len(name), name, fortran, len(shape), *shape)


def _dtype_name(array: np.ndarray[Any, Any]) -> str:
    check_dtype(array)
    return str(array.dtype.str)


def _buffers(arrays: Sequence[np.ndarray[Any, Any]]) -> list[Any]:
    """What `bytes.join` can copy from directly: the array itself where its elements lie in order, else its bytes."""
    plain = arrays[0].dtype.kind in "biuf"  # numpy exports no simple buffer of dates
    return [array if plain and array.flags.c_contiguous else array.tobytes() for array in arrays]


def _pack_torch_stack(values: Sequence[Any]) -> bytes | None:
    first = values[0]
    if not first.numel() or not all(is_torch(value) and value.shape == first.shape and value.dtype == first.dtype for value in values):
        return None
    pairs = [to_numpy(value) for value in values]
    name = pairs[0][0] or _dtype_name(pairs[0][1])
    return b"".join((_head(name, (len(values), *first.shape), False), *_buffers([array for _, array in pairs])))


def _checked(flat: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Bytes that numpy would take without looking but fail on later: booleans above 1, characters outside Unicode."""
    if flat.dtype.kind == "b":
        return flat.view(np.uint8).astype(np.bool_)
    if flat.dtype.kind == "U" and flat.view(flat.dtype.byteorder.replace("|", "=") + "u4").max() > _MAX_CODE_POINT:
        raise ValueError("a tensor of text that is not Unicode")
    return flat


def _as_torch(array: np.ndarray[Any, Any]) -> Any:
    torch = torch_module()
    if torch is None:
        return array
    try:
        return torch.from_numpy(array)
    except TypeError as error:
        raise ValueError(str(error)) from error


def _torch_only(name: str, array: np.ndarray[Any, Any]) -> Any:
    torch = torch_module()
    if torch is not None:
        return torch.from_numpy(array).view(getattr(torch, name))
    if name == "bfloat16":  # the upper half of a float32
        return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    raise ValueError(f"a tensor of dtype {name} needs torch, which this process has not loaded")
