"""Core state: a session's core as bytes, and back: all of it, whatever is under way.

Receives an object made of plain data and of classes of ours, as the pure core is; gives bytes that the same code
turns into the same object, shared parts included. They are a pickle that may name nothing but the classes of a core
and a few containers, so that whoever writes to the file gains no more than a broken session. A change of any
module that these classes stand in makes them another version's, which is refused.
"""

import hashlib
import importlib
import inspect
import io
import json
import pickle
import platform
from collections import OrderedDict, deque
from functools import cache
from typing import Any

import numpy as np

from agent.errors import StoreError

_PACKAGES = ("agent.core.", "agent.realtime.")
_AUDIO = frozenset({"audio.frames", "audio.hangover", "audio.polyphase", "audio.segmenter", "audio.telephony"})
"""What a core and its wire are made of: none of it does any I/O, whatever is called in it"""
_CONTAINERS: dict[tuple[str, str], type] = {
    (cls.__module__, cls.__name__): cls for cls in (OrderedDict, deque, set, frozenset, bytearray)
}
_PROTOCOL = 5


def freeze(core: object) -> bytes:
    """The object as bytes.

    Raises:
        TypeError: something in it is no data of ours.
    """
    content = io.BytesIO()
    pickler = _Pickler(content)
    pickler.dump(core)
    header = {"python": _python(), "modules": {name: _digest(name) for name in sorted(pickler.modules)}}
    return json.dumps(header).encode() + b"\n" + content.getvalue()


def thaw(state: bytes) -> Any:
    """The object that `freeze` was given.

    Raises:
        StoreError: the bytes are another version's, or damaged.
    """
    header, _, content = state.partition(b"\n")
    try:
        made_by = json.loads(header)
        modules = set(made_by["modules"])
        if not all(_is_core(name) for name in modules):
            raise ValueError("names modules that no core is made of")
        if made_by["python"] != _python() or any(_digest(name) != made_by["modules"][name] for name in modules):
            raise StoreError("the session was kept by another version")
        return _Unpickler(io.BytesIO(content), modules).load()
    except StoreError:
        raise
    except Exception as error:
        raise StoreError(f"the session is damaged ({type(error).__name__}: {error})") from error


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, _PROTOCOL)
        self.modules: set[str] = set()

    def reducer_override(self, obj: Any) -> Any:
        """Arrays without numpy's own ways, which change; everything else as usual, if it is ours."""
        if type(obj) is np.ndarray:
            return _array, (obj.dtype.str, obj.shape, obj.tobytes())
        cls = obj if isinstance(obj, type) else type(obj)
        if _is_core(cls.__module__):
            self.modules.update(base.__module__ for base in cls.__mro__ if _is_core(base.__module__))
        elif (cls.__module__, cls.__name__) not in _CONTAINERS and obj is not _array:
            raise TypeError(f"a core is made of plain data, not of {cls.__module__}.{cls.__qualname__}")
        return NotImplemented


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, modules: set[str]) -> None:
        super().__init__(file)
        self._modules = modules

    def find_class(self, module: str, name: str) -> Any:
        """Classes of our modules, and nothing that these modules happen to know."""
        if (module, name) == (_array.__module__, _array.__name__):
            return _array
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        found = super().find_class(module, name) if module in self._modules else None
        if not isinstance(found, type) or found.__module__ != module:
            raise pickle.UnpicklingError(f"names {module}.{name}")
        return found


def _is_core(module: str) -> bool:
    return module in _AUDIO or module.startswith(_PACKAGES)


def _array(dtype: str, shape: tuple[int, ...], content: bytes) -> np.ndarray[Any, Any]:
    return np.frombuffer(content, dtype).reshape(shape).copy()


@cache
def _digest(module: str) -> str:
    """Of a module's source."""
    return hashlib.sha256(inspect.getsource(importlib.import_module(module)).encode()).hexdigest()


def _python() -> str:
    return ".".join(platform.python_version_tuple()[:2])
