"""Reading .npy, .csv and .parquet; writing a file that is there whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from pairx.files import NoRoom, WrongFile, reserve, rows, target, writing


def csv_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "1,2\n3,4\n",
        "a,b\n1,2\n3,4\n",
        "a,b\r\n1,2\r\n3,4",
        "\ufeffa,b\n1,2\n3,4\n",
        '\n"a","b"\n"1","2"\n\n3, 4\n\n',
        "# a,b\n1e0,2\n3,4.\n",
    ],
    ids=["plain", "header", "windows", "bom", "quotes-and-blanks", "numpy-header"],
)
def test_csv(tmp_path: Path, text: str) -> None:
    got = rows(csv_file(tmp_path, text))
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, [[1, 2], [3, 4]])


def test_csv_empty_fields_are_nan(tmp_path: Path) -> None:
    np.testing.assert_array_equal(rows(csv_file(tmp_path, "a,b\n1,\n,4\n")), [[1, np.nan], [np.nan, 4]])


def test_csv_header_of_numbers_must_be_told(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "0,1\n5,6\n")
    assert rows(path).shape == (2, 2)
    np.testing.assert_array_equal(rows(path, header=True), [[5, 6]])


def test_csv_of_a_header_alone_has_no_rows(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    assert rows(csv_file(tmp_path, "a,b,c\n")).shape == (0, 3)
    assert not recwarn.list


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["is empty"]),
        ("a,b\n1,2\n3,setosa\n", ["line 3", "'setosa'", "column 2 (b)", "no number"]),
        ("1,2\n3\n", ["line 2", "1 fields", "2"]),
        ("1,2\n3,4,5\n", ["line 2", "3 fields"]),
        (",a,b\n0,1,2\n", ["column 1 has no name", "without it"]),
        ("a;b\n1;2\n", ["line 2", "separated by commas"]),
    ],
)
def test_wrong_csv(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(WrongFile) as error:
        rows(csv_file(tmp_path, text))
    assert all(word in str(error.value) for word in ["data.csv", *words])
    assert "\n" not in str(error.value)


def test_csv_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(b"\xff\xfe1\x00,\x002")
    with pytest.raises(WrongFile, match="no text in UTF-8"):
        rows(path)


def test_npy_is_mapped_and_not_read(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6.0).reshape(3, 2))
    got = rows(tmp_path / "a.npy")
    assert isinstance(got.base, np.memmap)
    assert type(got) is np.ndarray
    np.save(tmp_path / "none.npy", np.empty((0, 2), np.float32))
    assert rows(tmp_path / "none.npy").shape == (0, 2)


def test_wrong_npy(tmp_path: Path) -> None:
    def message(name: str) -> str:
        with pytest.raises(WrongFile) as error:
            rows(tmp_path / name)
        assert "\n" not in str(error.value)
        assert name in str(error.value)
        return str(error.value)

    np.save(tmp_path / "objects.npy", np.array([[None, 1]]), allow_pickle=True)
    assert "Python objects" in message("objects.npy")
    np.save(tmp_path / "text.npy", np.array([["a"]]))
    assert "<U1" in message("text.npy")
    np.save(tmp_path / "vector.npy", np.zeros(3))
    assert "(3,)" in message("vector.npy")
    (tmp_path / "junk.npy").write_bytes(b"junk")
    assert "no NumPy .npy file" in message("junk.npy")
    (tmp_path / "nothing.npy").write_bytes(b"")
    assert "no NumPy .npy file" in message("nothing.npy")
    np.save(tmp_path / "cut.npy", np.zeros((100, 100)))
    os.truncate(tmp_path / "cut.npy", 1000)
    assert "shorter than its header says" in message("cut.npy")
    assert "No such file" in message("absent.npy")
    (tmp_path / "folder.npy").mkdir()
    message("folder.npy")
    assert "expected a .npy, .csv or .parquet" in message("data.xlsx")


def test_parquet(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"a": [1, 2], "b": [0.5, None]}), path)
    np.testing.assert_array_equal(rows(path), [[1, 0.5], [2, np.nan]])
    parquet.write_table(pyarrow.table({"a": [1.0], "species": ["setosa"]}), path)
    with pytest.raises(WrongFile, match="column 'species' holds string"):
        rows(path)
    path.write_bytes(b"junk")
    with pytest.raises(WrongFile, match="no Parquet file"):
        rows(path)


def test_parquet_without_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(WrongFile, match="pip install pyarrow"):
        rows(tmp_path / "a.parquet")


def test_target(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 1)))
    (tmp_path / "link.npy").symlink_to(tmp_path / "a.npy")
    assert target(tmp_path / "new.npy") == tmp_path / "new.npy"
    assert target(tmp_path / "link.npy") == tmp_path / "a.npy", "a link stays, and its file is replaced"
    for path, why in (
        (tmp_path / "a.txt", "ending"),
        (tmp_path / "a.npy", "is an input"),
        (tmp_path / "link.npy", "is an input"),
        (tmp_path / "absent" / "o.npy", "there is no folder"),
    ):
        with pytest.raises(WrongFile, match=why):
            target(path, tmp_path / "a.npy", None)


@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (0, 0)])
@pytest.mark.parametrize("allocates", [True, False], ids=["fallocate", "zeros"])
def test_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, int], allocates: bool) -> None:
    if not allocates:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    path = tmp_path / "o.npy"
    with writing(path, shape, np.float32) as hidden:
        assert hidden.name.startswith(".")
        assert hidden.stat().st_size == 128 + 4 * shape[0] * shape[1]
        assert not path.exists()
        out = np.load(hidden, mmap_mode="r+")
        out[...] = 7
        del out
    assert os.listdir(tmp_path) == ["o.npy"]
    got = np.load(path)
    assert (got.shape, got.dtype) == (shape, np.float32)
    assert (got == 7).all()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_fails_leaves_nothing_behind(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "o.npy"
    path.write_bytes(b"as it was")
    with pytest.raises(error), writing(path, (3, 4), np.float32):
        raise error
    assert os.listdir(tmp_path) == ["o.npy"]
    assert path.read_bytes() == b"as it was"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "o.npy"
    path.touch()
    path.chmod(0o640)
    with writing(path, (1, 1), np.float64):
        pass
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG])
@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="a call of POSIX")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def full(*args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(NoRoom, match=r"the result takes 48 B, and .* has no room for it"), writing(tmp_path / "o.npy", (3, 4), np.float32):
        pass
    assert not os.listdir(tmp_path)


def test_more_than_the_disk_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(NoRoom, match=r"GiB left"), writing(tmp_path / "o.npy", (10**8, 10**8), np.float32):
        pass
    assert not os.listdir(tmp_path)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="a call of POSIX")
def test_a_file_system_that_does_not_reserve_is_written_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with (tmp_path / "f").open("xb") as file:
        file.write(b"head")
        reserve(file, 3 << 20)
    assert (tmp_path / "f").stat().st_size == 4 + (3 << 20)
    assert (tmp_path / "f").read_bytes()[:5] == b"head\0"
