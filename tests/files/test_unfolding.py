"""Chunks of which a few bytes stand for far more than the memory."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp.arrays import memory
from nmf_xp.files import FileError, read_matrix

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (300, 200)
LARGE = 10**7
FREE = 2 * 10**6


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: FREE)


def _codecs() -> dict[str, Any]:
    numcodecs: Any = pytest.importorskip("numcodecs", reason="numcodecs is not installed")
    return {
        "zlib": numcodecs.Zlib(9),
        "gzip": numcodecs.GZip(9),
        "bz2": numcodecs.BZ2(),
        "lzma": numcodecs.LZMA(),
        "blosc": numcodecs.Blosc(),
        "lz4": numcodecs.LZ4(),
        "zstd": numcodecs.Zstd(),
    }


@pytest.mark.parametrize("name", ["zlib", "gzip", "bz2", "lzma", "blosc", "lz4", "zstd"])
def test_a_chunk_of_zarr_that_unfolds_beyond_the_memory_is_refused(tmp_path: Path, name: str) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    codec, path = _codecs()[name], tmp_path / "V.zarr"
    values = np.random.default_rng(0).integers(0, 9, SHAPE)
    zarr.create_array(path, data=values, chunks=SHAPE, compressors=codec, zarr_format=2)
    np.testing.assert_array_equal(read_matrix(path).values, values)
    (path / "0.0").write_bytes(codec.encode(bytes(LARGE)))
    assert (path / "0.0").stat().st_size < 50_000
    with pytest.raises(FileError, match=r"one unfolds to [0-9.]+ GB or more"):
        read_matrix(path)


@pytest.mark.parametrize("index", ["start", "end"])
def test_chunks_within_shards_are_found(tmp_path: Path, index: str) -> None:
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    path = tmp_path / "V.zarr"
    inner = [zarr.codecs.BytesCodec(), zarr.codecs.GzipCodec(level=9)]
    shards = zarr.codecs.ShardingCodec(chunk_shape=(150, 100), codecs=inner, index_location=index)
    values = np.random.default_rng(0).integers(0, 9, SHAPE)
    array = zarr.create(store=path, shape=SHAPE, chunks=SHAPE, dtype=values.dtype, codecs=[shards], zarr_format=3)
    array[...] = values
    np.testing.assert_array_equal(read_matrix(path).values, values)
    file = path / "c" / "0" / "0"
    content, bomb = bytearray(file.read_bytes()), _codecs()["gzip"].encode(bytes(LARGE))
    begin = 0 if index == "start" else len(content) - 4 * 16 - 4
    first = int.from_bytes(content[begin : begin + 8], "little")
    content[first : first + len(bomb)] = bomb
    content[begin + 8 : begin + 16] = len(bomb).to_bytes(8, "little")
    file.write_bytes(content)
    with pytest.raises(FileError, match=r"one unfolds to [0-9.]+ GB or more"):
        read_matrix(path)


def test_a_chunk_of_hdf5_that_unfolds_beyond_the_memory_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    path = tmp_path / "V.h5"
    values = np.random.default_rng(0).integers(0, 9, SHAPE)
    with h5py.File(path, "w") as file:
        V = file.create_dataset("V", data=values, chunks=SHAPE, compression="gzip", shuffle=True, fletcher32=True)
        assert V.id.get_storage_size() * 1032 > FREE
    np.testing.assert_array_equal(read_matrix(path).values, values)
    with h5py.File(path, "a") as file:
        file["V"].id.write_direct_chunk((0, 0), zlib.compress(bytes(LARGE), 9) + bytes(4))
    assert path.stat().st_size < 200_000
    with pytest.raises(FileError, match=r"one unfolds to [0-9.]+ GB or more"):
        read_matrix(path)


def test_what_is_compressed_twice_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py is not installed")
    zarr = pytest.importorskip("zarr", reason="zarr is not installed")
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((3, 2))
    plan.set_deflate(9)
    plan.set_deflate(9)
    with h5py.File(tmp_path / "V.h5", "w") as file:
        space = h5py.h5s.create_simple((3, 2))
        h5py.h5d.create(file.id, b"V", h5py.h5t.NATIVE_DOUBLE, space, plan)
    twice = [zarr.codecs.GzipCodec(), zarr.codecs.ZstdCodec()]
    zarr.create_array(tmp_path / "V.zarr", data=np.ones((3, 2)), compressors=twice)
    for name in ("V.h5", "V.zarr"):
        with pytest.raises(FileError, match="chunks that are compressed twice"):
            read_matrix(tmp_path / name)
