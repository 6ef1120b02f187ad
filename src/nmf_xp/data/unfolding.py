"""How large compressed chunks become, found out before any is decoded: a few bytes can stand for gigabytes of zeros.

Decoders make all that a chunk unfolds to, and look at its size afterwards. Some formats say the size in front. Of the
others a chunk is unfolded once, without being kept, where the most that it can become is more than the memory.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import os
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nmf_xp.arrays import memory
from nmf_xp.data.chunks import ALWAYS, check_chunks, is_zarr
from nmf_xp.data.codecs import SHARDS, check_codecs, codecs_of, names_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    Piece = tuple[Path, int, int]

COMPRESSORS = {"blosc", "bz2", "gzip", "lz4", "lzma", "pcodec", "zfpy", "zlib", "zstd"}
LARGEST = {"zlib": 1032, "gzip": 1032, "bz2": 2**20, "lzma": 2**13}
"""The most bytes that a byte can stand for, where no size is said in front."""

PIECE = 2**20  # bytes that are unfolded together
HEAD = 18  # bytes in which a size is said
PLAIN = {2, 3, 5, 6}  # HDF5's filters that compress nothing, or at most to parts of bytes, by their numbers
DEFLATE, CHECKSUM = 1, 3


def check_stored(stored: Any) -> None:
    """Refuse an array of a file that is not safe to decode: by its chunks' size, its codecs, or what they unfold to."""
    check_chunks(stored)
    check_codecs(stored)
    check_unfolding(stored)


def check_unfolding(stored: Any) -> None:
    """Refuse an array of HDF5, or of zarr in a folder, with a chunk that unfolds to more than the memory."""
    if is_zarr(stored):
        _check_zarr(stored)
    elif type(stored).__module__.startswith("h5py") and stored.chunks:
        _check_hdf5(stored)


def _refuse(bytes_: float | None = None) -> None:
    what = "that are compressed twice" if bytes_ is None else f"of which one unfolds to {bytes_ / 1e9:.3g} GB or more"
    msg = f"it is stored in chunks {what}, which may be more than the memory; store it anew"
    raise ValueError(msg)


def _check_zarr(array: Any) -> None:
    names = [name.removeprefix("numcodecs.") for name in names_of(array)]
    compressors = [name for name in names if name in COMPRESSORS]
    if len(compressors) > 1:
        _refuse()
    if not compressors:
        return
    limit = max(memory.available(), ALWAYS)
    for piece in pieces_of(array):
        bytes_ = _unfolded(compressors[0], piece, limit)
        if bytes_ > limit:
            _refuse(bytes_)


def pieces_of(array: Any) -> Iterator[Piece]:
    """Where the chunks of a zarr array in a folder stand: a file each, or parts of one where they are in shards."""
    root = getattr(array.store, "root", None)
    if root is None:
        return
    folder = Path(root, array.path)
    shards = [codec for codec in codecs_of(array) if hasattr(codec, "index_codecs")]
    for place, _, names in os.walk(folder):
        for name in names:
            if name == "zarr.json" or name.startswith(".z"):
                continue
            path = Path(place, name)
            if shards:
                yield from _in_shard(path, shards[0], array)
            else:
                yield path, 0, path.stat().st_size


def _in_shard(path: Path, codec: Any, array: Any) -> Iterator[Piece]:
    """The chunks in a file by the index at its end or begin, which must be stored as zarr does by itself."""
    import numpy as np

    if [str(inner.to_dict()["name"]) for inner in codec.index_codecs] != ["bytes", "crc32c"] or SHARDS in [
        str(inner.to_dict()["name"]) for inner in codec.codecs
    ]:
        _refuse()
    length = 16 * math.prod(int(s) // int(c) for s, c in zip(array.shards, codec.chunk_shape, strict=True))
    size = path.stat().st_size
    at_end = str(getattr(codec.index_location, "value", codec.index_location)) == "end"
    with path.open("rb") as file:
        file.seek(max(0, size - length - 4) if at_end else 0)
        index = np.frombuffer(file.read(length), dtype="<u8")
    for begin, bytes_ in index[: len(index) // 2 * 2].reshape(-1, 2).tolist():
        if begin < size:  # others are empty
            yield path, begin, min(bytes_, size - begin)


def _unfolded(name: str, piece: Piece, limit: int) -> float:
    """About how many bytes a piece of a file becomes; counted no further than to the limit."""
    path, begin, size = piece
    with path.open("rb") as file:
        file.seek(begin)
        if name not in LARGEST:
            return _said(name, file.read(min(HEAD, size)))
        if size * LARGEST[name] <= limit:
            return size
        return _counted(name, file.read(size), limit)


def _said(name: str, head: bytes) -> int:
    """The size that is said in front, 0 where none is."""
    match name:
        case "blosc":
            return int.from_bytes(head[4:8], "little")
        case "lz4":
            return int.from_bytes(head[:4], "little")
        case "zstd" if head[:4] == b"\x28\xb5\x2f\xfd" and len(head) > 5:
            flags = head[4]
            single = flags >> 5 & 1
            begin = 6 - single + (0, 1, 2, 4)[flags & 3]
            width = (single, 2, 4, 8)[flags >> 6]
            return int.from_bytes(head[begin : begin + width], "little") + 256 * (width == 2)
    return 0


def _counted(name: str, content: bytes, limit: int) -> float:
    """What the content becomes, piece by piece; what cannot be unfolded may be anything."""
    file: Any = io.BytesIO(content)
    found = 0
    try:
        if name == "zlib":
            unfold, rest = zlib.decompressobj(), content
            while rest and not unfold.eof and found <= limit:
                found += len(unfold.decompress(rest, PIECE))  # lint: an int
                rest = unfold.unconsumed_tail
            return found
        opened: Any = {"gzip": gzip.open, "bz2": bz2.open, "lzma": lzma.open}[name]
        with opened(file) as stream:
            while found <= limit and (piece := stream.read(PIECE)):
                found += len(piece)  # lint: an int
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        return float(LARGEST[name]) * len(content)
    return found


def _check_hdf5(dataset: Any) -> None:
    """Its deflate makes room until all is unfolded; other filters say the size in front, or make little of much."""
    plan = dataset.id.get_create_plist()
    filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
    if len([number for number in filters if number not in PLAIN]) > 1:
        _refuse()
    limit = max(memory.available(), ALWAYS)
    if DEFLATE not in filters or dataset.id.get_storage_size() * LARGEST["zlib"] <= limit:
        return
    large: list[Any] = []
    dataset.id.chunk_iter(lambda chunk: large.append(chunk) if chunk.size * LARGEST["zlib"] > limit else None)
    for chunk in large:
        outermost = [number for number in filters if number != CHECKSUM][-1] == DEFLATE
        content = dataset.id.read_direct_chunk(chunk.chunk_offset)[1] if outermost else b""
        bytes_ = _counted("zlib", content, limit) if outermost else float(LARGEST["zlib"]) * chunk.size
        if bytes_ > limit:
            _refuse(bytes_)
