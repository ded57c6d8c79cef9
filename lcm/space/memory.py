"""Memory: what a process no longer needs goes back to the system at once. Linux only; elsewhere nothing happens."""

import ctypes
import functools
import mmap
import sys
from typing import Any

from torch import Tensor


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
