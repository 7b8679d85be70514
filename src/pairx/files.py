"""Arrays from files, and a result that grows in a file: what ``pairx cdist`` reads and writes."""

from __future__ import annotations

import contextlib
import csv
import errno
import math
import os
import secrets
import shutil
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from .plan import human

Array = Any


class WrongFile(ValueError):
    """A file that cannot be used, in one line; wrong usage."""


class NoRoom(OSError):
    """The disk is full, in one line; no fault of the usage."""


# --- reading ------------------------------------------------------------------------------------------------------------


def read(path: str | Path, *, header: bool | None = None) -> Array:
    """The numbers of a .npy, .csv or .parquet file.

    Parameters
    ----------
    path
        The file. A .npy file is mapped into memory and not read whole.
    header
        Whether a .csv file begins with a line of names; default: if any field of it is no number.

    Returns
    -------
    numpy.ndarray
        Of the file's dtype; .csv gives float64, with NaN for empty fields.

    Raises
    ------
    WrongFile
        If there is no such file, or it does not hold an array of numbers; one line that names it.
    """
    import numpy as np

    path = Path(path)
    readers = {".npy": _npy, ".csv": lambda p: _csv(p, header), ".parquet": _parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise WrongFile(f"{path}: expected a .npy, .csv or .parquet file.")
    try:
        found = reader(path)
    except OSError as error:
        raise WrongFile(f"{path}: {error.strerror or error}") from error
    if found.dtype.kind not in "biufc":
        raise WrongFile(f"{path} holds {'Python objects' if found.dtype.hasobject else found.dtype}: expected numbers.")
    return np.asarray(found)


def rows(path: str | Path, *, header: bool | None = None) -> Array:
    """As :func:`read`, and it must be a table of rows: two axes."""
    found = read(path, header=header)
    if found.ndim != 2:
        raise WrongFile(f"{path} has shape {found.shape}: expected two axes, (rows, features).")
    return found


def _npy(path: Path) -> Array:
    import numpy as np

    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        with path.open("rb") as file:
            magic = file.read(6)
        if magic != b"\x93NUMPY":
            raise WrongFile(f"{path} is no NumPy .npy file.") from error
        if "Python objects" in str(error) or "Object arrays" in str(error):
            raise WrongFile(f"{path} holds Python objects: expected numbers.") from error
        if "mmap" in str(error):
            raise WrongFile(f"{path} is shorter than its header says: it was not written to its end.") from error
        raise WrongFile(f"{path}: {' '.join(str(error).split())}") from error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return not text.strip()
    return True


def _csv(path: Path, header: bool | None) -> Array:
    import numpy as np

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next((row for row in csv.reader(file) if row), [])
        if not first:
            raise WrongFile(f"{path} is empty.")
        if header is None:
            header = not all(_is_number(field) for field in first)
        if header and any(not name.strip() for name in first):
            nameless = next(i for i, name in enumerate(first, 1) if not name.strip())
            raise WrongFile(f"{path}: column {nameless} has no name. If it numbers the rows, write the file without it.")
        try:
            with path.open(encoding="utf-8-sig") as file, warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # a header and no rows
                skipped = next(line for line in file if line.strip()) if header else ""
                if not skipped:
                    file.seek(0)
                found = np.loadtxt(file, delimiter=",", comments=None, quotechar='"', ndmin=2)
        except ValueError:
            found = _slow_csv(path, first, header)
    except UnicodeDecodeError as error:
        raise WrongFile(f"{path} is no text in UTF-8: {error}") from error
    except csv.Error as error:
        raise WrongFile(f"{path}: {error}") from error
    return found if found.size else np.empty((0, len(first)))


def _slow_csv(path: Path, first: list[str], header: bool) -> Array:
    """Line by line: empty fields become NaN, and what is wrong is found and named."""
    import numpy as np

    found: list[list[float]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        for row in filter(None, reader):
            if header:
                header = False
                continue
            where = f"{path}, line {reader.line_num}"
            if len(row) != len(first):
                raise WrongFile(f"{where}: {len(row)} fields, and the first line has {len(first)}.")
            try:
                found.append([float(field) if field.strip() else math.nan for field in row])
            except ValueError:
                column = next(i for i, field in enumerate(row) if not _is_number(field))
                name = f" ({first[column]})" if not _is_number(first[column]) else ""
                hint = " Columns are separated by commas." if len(row) == 1 and (";" in row[0] or "\t" in row[0]) else ""
                raise WrongFile(f"{where}: {row[column]!r} in column {column + 1}{name} is no number.{hint}") from None
    return np.array(found).reshape(-1, len(first))


def _parquet(path: Path) -> Array:
    import numpy as np

    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise WrongFile(f"{path}: reading .parquet needs pyarrow: pip install pyarrow") from error
    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise WrongFile(f"{path} is no Parquet file: {' '.join(str(error).split())[:200]}") from error
    types = pyarrow.types
    for field in table.schema:
        if not (types.is_integer(field.type) or types.is_floating(field.type) or types.is_boolean(field.type)):
            raise WrongFile(f"{path}: column {field.name!r} holds {field.type}: expected numbers in every column.")
    if not table.num_columns:
        return np.empty((table.num_rows, 0))
    columns = [column.to_numpy() for column in table.columns]  # nulls become NaN
    if any(c.dtype.hasobject for c in columns):  # except among booleans
        raise WrongFile(f"{path} has missing booleans: fill them.")
    return np.column_stack(columns)


# --- writing ------------------------------------------------------------------------------------------------------------


def target(path: str | Path, *inputs: str | Path | None) -> Path:
    """Where a result goes: a file that may be replaced. A link stays, and the file that it names is replaced.

    Raises
    ------
    WrongFile
        If it is not named .npy, is one of the inputs, no plain file, or its folder is missing or cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".npy":
        raise WrongFile(f"{path}: the result is written as .npy; give it that ending.")
    real = Path(os.path.realpath(path))
    if real.exists() and not real.is_file():
        raise WrongFile(f"{path} is no plain file.")
    for other in inputs:
        if other is not None and real.exists() and Path(other).exists() and real.samefile(other):
            raise WrongFile(f"{path} is an input, which the result would replace.")
    if not real.parent.is_dir():
        raise WrongFile(f"{path}: there is no folder {real.parent}.")
    if not os.access(real.parent, os.W_OK):
        raise WrongFile(f"{path}: the folder {real.parent} cannot be written.")
    return real


def reserve(file: IO[bytes], size: int) -> None:
    """Take ``size`` more bytes of disk for a file that is open at its end, now: a memory map dies of a signal on a full disk.

    Raises
    ------
    NoRoom
        If they are not there.
    """
    folder, start = os.path.dirname(file.name), file.tell()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise NoRoom(errno.ENOSPC, f"the result takes {human(size)}, and {folder} has {human(free)} left")
    try:
        if not _fallocate(file.fileno(), start, size):  # macOS, Windows, some file systems: only what is written is ours
            zeros = bytes(1 << 20)
            for done in range(0, size, len(zeros)):
                file.write(zeros[: size - done])
        file.flush()
    except OSError as error:
        if error.errno in _FULL:
            why = (error.strerror or "disk full").lower()
            raise NoRoom(error.errno, f"the result takes {human(size)}, and {folder} has no room for it ({why})") from error
        raise


_FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def _fallocate(handle: int, start: int, size: int) -> bool:
    """Whether the file system has reserved the bytes."""
    if not hasattr(os, "posix_fallocate") or not size:
        return not size
    try:
        os.posix_fallocate(handle, start, size)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            return False
        raise
    return True


@contextmanager
def writing(path: Path, shape: tuple[int, ...], dtype: Any) -> Iterator[Path]:
    """A .npy file of that shape, to be filled, that becomes ``path`` when the block ends well, and nothing otherwise.

    Until then it stands in the same folder under a hidden name, so that the last step is one renaming: whoever looks
    sees the old file or the whole new one.

    Parameters
    ----------
    path
        The file, as :func:`target` answers it.
    shape, dtype
        Of the array.

    Yields
    ------
    Path
        The hidden file. Its space is reserved, so it is safe to fill through a memory map.

    Raises
    ------
    NoRoom
        If the disk is full.
    """
    import numpy as np

    dtype = np.dtype(dtype)
    layout = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    hidden = path.parent / f".{path.name}.{secrets.token_hex(4)}.part"
    try:
        with hidden.open("xb") as file:
            np.lib.format.write_array_header_1_0(file, layout)
            reserve(file, math.prod(shape) * dtype.itemsize)
        yield hidden
        if path.exists():
            shutil.copymode(path, hidden)
        with hidden.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(hidden, path)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)  # Windows removes no file that a frame still maps
        with contextlib.suppress(OSError):
            hidden.unlink(missing_ok=True)
        raise
    _sync(path.parent)


def _sync(folder: Path) -> None:
    """The new name itself reaches the disk; Windows has no such call."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
