"""A Python function as a custom call of XLA on the CPU, that reads and writes XLA's own buffers.

``jax.pure_callback`` copies the result twice, holds it in memory a second time, and puts its inputs on a device, which may
block for ever when XLA's threads are all busy. The typed FFI of XLA is a stable C interface: its structures are spelled out
here, as far as they are read (their first fields do not move within a major version).
"""

from __future__ import annotations

import ctypes
import logging
import traceback
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from math import prod
from typing import Any

import jax
import numpy as np

try:
    from jax import ffi
except ImportError:  # before JAX 0.5
    ffi = None

Array = Any
NAME = "pairx_host"
_HEAD = [("struct_size", c_size_t), ("extension", c_void_p)]


def _structure(name: str, *fields: tuple[str, Any], head: bool = True) -> Any:
    return type(name, (Structure,), {"_fields_": [*(_HEAD if head else []), *fields]})


_Version = _structure("ApiVersion", ("major", c_int), ("minor", c_int))
_Api = _structure("Api", ("version", _Version), ("internal", c_void_p), ("error_create", c_void_p))
_Buffer = _structure("Buffer", ("dtype", c_int), ("data", c_void_p), ("rank", c_int64), ("dims", POINTER(c_int64)))
_Many = _structure("Buffers", ("size", c_int64), ("types", c_void_p), ("buffers", POINTER(POINTER(_Buffer))))
_Text = _structure("ByteSpan", ("data", c_void_p), ("size", c_size_t), head=False)
_Attributes = _structure("Attributes", ("size", c_int64), ("types", c_void_p), ("names", c_void_p), ("values", POINTER(POINTER(_Text))))
_Frame = _structure(
    "CallFrame",
    ("api", POINTER(_Api)), ("context", c_void_p), ("stage", c_int), ("arguments", _Many), ("results", _Many), ("attributes", _Attributes),
)  # fmt: skip
_ErrorArguments = _structure("ErrorCreate", ("message", c_char_p), ("code", c_int))
_Metadata = type(
    "Metadata", (Structure,), {"_fields_": [("struct_size", c_size_t), ("version", _Version), ("traits", c_uint32), ("state", c_int64)]}
)
_Extension = type(
    "Extension",
    (Structure,),
    {"_fields_": [("struct_size", c_size_t), ("type", c_int), ("next", c_void_p), ("metadata", POINTER(_Metadata))]},
)
_METADATA, _EXECUTE, _INTERNAL = 1, 3, 13

_DTYPES = {
    1: "bool", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "uint8", 7: "uint16", 8: "uint32", 9: "uint64",
    10: "float16", 11: "float32", 12: "float64", 16: "bfloat16",
}  # fmt: skip

Work = Callable[[list[Array], list[Array]], None]
_WORK: dict[str, Work] = {}
"""What a custom call does, by the text that it carries: it says all that there is to say, since XLA may keep the program on disk."""


def available() -> bool:
    """Whether this JAX has the typed interface in public."""
    return ffi is not None


def call(text: str, work: Work, results: Sequence[Any], *arguments: Array) -> list[Array]:
    """``work(arguments, results)`` on NumPy arrays over XLA's buffers, when the traced program runs on the CPU."""
    _WORK[text] = work
    _register()
    found: list[Array] = ffi.ffi_call(NAME, list(results))(*arguments, work=text)
    return found


def _arrays(many: Any) -> list[Array]:
    found = []
    for k in range(many.size):
        buffer = many.buffers[k].contents
        shape = tuple(buffer.dims[i] for i in range(buffer.rank))
        dtype = np.dtype(jax.numpy.bfloat16 if buffer.dtype == 16 else _DTYPES[buffer.dtype])
        size = prod(shape) * dtype.itemsize
        memory = (ctypes.c_char * size).from_address(buffer.data) if size else b""
        found.append(np.frombuffer(memory, dtype).reshape(shape))
    return found


def _handle(pointer: Any) -> int | None:
    """XLA asks what this function is, or calls it; answers None or an error of XLA's."""
    frame = pointer.contents
    try:
        if frame.extension:
            extension: Any = ctypes.cast(frame.extension, POINTER(_Extension)).contents
            if extension.type == _METADATA:
                metadata = extension.metadata.contents
                metadata.version.struct_size, metadata.version.extension = ctypes.sizeof(_Version), None
                metadata.version.major, metadata.version.minor = 0, frame.api.contents.version.minor if frame.api else 1
                metadata.traits = 0
                return None
        if frame.stage != _EXECUTE:
            return None
        text = frame.attributes.values[0].contents
        _WORK[ctypes.string_at(text.data, text.size).decode()](_arrays(frame.arguments), _arrays(frame.results))
        return None
    except BaseException as error:  # nothing may leave through C
        logging.getLogger("pairx").debug("in a custom call", exc_info=True)
        message = "pairx: " + "".join(traceback.format_exception(error))
        arguments = _ErrorArguments(ctypes.sizeof(_ErrorArguments), None, message.encode(), _INTERNAL)
        create = ctypes.CFUNCTYPE(c_void_p, POINTER(_ErrorArguments))(frame.api.contents.error_create)
        return int(create(ctypes.byref(arguments)))


_HANDLER = ctypes.CFUNCTYPE(c_void_p, POINTER(_Frame))(_handle)
_registered: list[str] = []


def _register() -> None:
    if not _registered:
        ffi.register_ffi_target(NAME, ffi.pycapsule(ctypes.cast(_HANDLER, c_void_p).value), platform="cpu")
        _registered.append(NAME)
