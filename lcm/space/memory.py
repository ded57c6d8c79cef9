"""Memory: what is not needed is not taken, and what no longer is goes back to the system at once (on Linux)."""

import ctypes
import functools
import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


def give_back(tensor: Tensor) -> None:
    """Tells Linux that the mapped pages of a tensor are not needed any more; they would count as ours until the end."""
    if not sys.platform.startswith("linux") or tensor.nbytes < mmap.PAGESIZE:
        return
    storage = tensor.untyped_storage()
    first = -(-storage.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (storage.data_ptr() + storage.nbytes() - first) // mmap.PAGESIZE * mmap.PAGESIZE
    if length > 0:
        _libc().madvise(ctypes.c_void_p(first), ctypes.c_size_t(length), mmap.MADV_DONTNEED)


def return_memory() -> None:
    """Hands free memory of the heap to the system.

    Models come and go in pieces between which small things lie: after 8-bit rounding the heap held twice the model.
    """
    if trim := getattr(_libc(), "malloc_trim", None):
        trim(ctypes.c_size_t(0))


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None) if sys.platform.startswith("linux") else None


@contextmanager
def shapes_only() -> Iterator[None]:
    """Modules made in here have names, shapes and no values: neither memory nor time for what a checkpoint replaces.

    Random values have no meaning there either; asked for some, torch would load its symbolic algebra, 75 MB and half a
    second of it.
    """
    with torch.device("meta"), _Unfilled():
        yield


class _Unfilled(TorchFunctionMode):
    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is nn.init.normal_:
            return args[0] if args else given["tensor"]
        return func(*args, **given)
