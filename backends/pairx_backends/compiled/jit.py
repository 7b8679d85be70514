"""From LLVM's text to a function: compiled for this processor, and kept on disk for the next process."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import sys
import tempfile
import threading
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from pairx.calls import COMPILE_FROM

Function = Any
_KEPT: dict[str, Function] = {}
log = logging.getLogger("pairx")
_LOCK = threading.RLock()
if hasattr(os, "register_at_fork"):  # another thread may have held it

    def _unlocked() -> None:
        global _LOCK
        _LOCK = threading.RLock()

    os.register_at_fork(after_in_child=_unlocked)


@cache
def target() -> Any:
    """The kind of processor that this process runs on, with the C library's functions made known."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    found = llvm.Target.from_default_triple()
    libm = ctypes.CDLL("ucrtbase") if sys.platform == "win32" else ctypes.CDLL(None)
    if not hasattr(libm, "sinf"):
        from ctypes.util import find_library

        libm = ctypes.CDLL(find_library("m"))
    for name in ("sin", "cos", "tanh", "atan2", "pow"):
        for suffix in ("", "f"):
            llvm.add_symbol(name + suffix, ctypes.cast(getattr(libm, name + suffix), ctypes.c_void_p).value)
    return found


def machine() -> Any:
    """The processor itself. A new one each time: an engine takes it and frees it."""
    reloc = "pic" if sys.platform != "win32" else "default"
    return target().create_target_machine(llvm.get_host_cpu_name(), features(), opt=3, reloc=reloc, codemodel="jitdefault")


@cache
def features() -> str:
    """The instructions there are, as LLVM writes them."""
    return str(llvm.get_host_cpu_features().flatten())


@cache
def lanes(scalar: str) -> int:
    """How many numbers fill one vector register."""
    found = features()
    width = 64 if "+avx512f" in found and "-prefer" not in found else 32 if "+avx" in found else 16
    return width // (4 if scalar == "float" else 8)


def folder() -> Path | None:
    """Where compiled code is kept: PAIRX_CACHE_DIR, or the user's cache folder; None where nothing can be written.

    Code from there is run, so it must be a folder of this user's own.
    """
    chosen = os.environ.get("PAIRX_CACHE_DIR")
    if chosen == "":
        return None
    if chosen:
        base = Path(chosen)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home()) / "pairx"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches" / "pairx"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pairx"
    try:
        base.mkdir(parents=True, exist_ok=True, mode=0o700)
        if hasattr(os, "getuid"):
            about = base.stat()
            if about.st_uid != os.getuid() or about.st_mode & 0o022:
                return None
        return base if os.access(base, os.W_OK | os.R_OK) else None
    except (OSError, RuntimeError):
        return None


def key(text: str) -> str:
    """What the compiled code depends on: the text, the processor, and who compiles."""
    parts = (text, llvmlite.__version__, str(llvm.llvm_version_info), llvm.get_host_cpu_name(), features(), sys.platform)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:40]


def read(name: str) -> bytes | None:
    """Kept code, if it is there and whole: its checksum stands before it."""
    base = folder()
    if base is None:
        return None
    try:
        data = (base / f"{name}.bin").read_bytes()
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def keep(name: str, code: bytes) -> None:
    """Write compiled code under its final name in one step; a failure costs the next process a second, and no more."""
    base = folder()
    if base is None:
        return
    try:
        handle, part = tempfile.mkstemp(dir=base, prefix=".part-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(hashlib.sha256(code).digest() + code)
            os.replace(part, base / f"{name}.bin")
        except BaseException:
            Path(part).unlink(missing_ok=True)
            raise
    except OSError:
        log.debug("pairx: the compiled code could not be kept in %s", base)


def kept(identity: str) -> bool:
    """Whether the code of a text, of which this is the key, is in memory or on disk."""
    return identity in _KEPT or read(identity) is not None


def compiled(text: str) -> bytes:
    """Machine code."""
    host = machine()
    parsed = llvm.parse_assembly(text)
    parsed.triple, parsed.data_layout = host.triple, str(host.target_data)
    parsed.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_unrolling = True
    builder = llvm.create_pass_builder(host, options)
    builder.getModulePassManager().run(parsed, builder)
    return bytes(host.emit_object(parsed))


FREE = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p)
"""``f(address of slots)``, without Python's lock."""
LOCKED = ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_size_t] * 5)
"""With it: for calls so short that to give it away would take longer, and for slots that threads share."""


def build(text: str, name: str, what: str, kind: Any = FREE) -> Function:
    """The function ``name`` of a module's text."""
    with _LOCK:
        identity = key(text)
        if identity in _KEPT:
            return _KEPT[identity]
        code = read(identity)
        if code is None:
            log.debug("pairx: compiling %s", what)
            code = compiled(text)
            keep(identity, code)
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        address = engine.get_function_address(name)
        if not address:
            raise RuntimeError(f"{what}: the compiled code has no function {name}.")
        function = kind(address)
        function.engine = engine  # the code lives as long as the engine does
        _KEPT[identity] = function
        return function


class Source:
    """A function's text, compiled when the function is first asked for."""

    def __init__(self, text: str, name: str, what: str) -> None:
        self.text, self.name, self.what, self.identity = text, name, what, key(text)

    def worth(self, terms: int) -> bool:
        """Whether a call of so many terms need not wait for the compiler, or may."""
        return terms > COMPILE_FROM or "function" in self.__dict__ or self._there

    @cached_property
    def _there(self) -> bool:
        """Whether it was kept at the first call: bits must not change by what another process compiles meanwhile."""
        return kept(self.identity)

    @cached_property
    def function(self) -> Function:
        """The function."""
        return build(self.text, self.name, self.what)
