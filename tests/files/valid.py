"""Valid files of every kind that is read, by several writers, in parts that are put together once they are damaged.

Each sample follows from its random numbers alone.
"""

from __future__ import annotations

import functools
import importlib
import io
import json
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from nmf_xp import nmf
from nmf_xp.files import archive
from nmf_xp.run.checkpoint import storage
from tests.files import kinds, pictures

if TYPE_CHECKING:
    from collections.abc import Callable

    Rng = np.random.Generator
    Parts = dict[str, bytes]

WHOLE = "whole"
"""The part of a file that has no others."""

NUMBERS = ("<f8", "<f4", ">f8", "<f2", "<i4", "<i8", "u1", "<u2", "?")
V = np.random.default_rng(0).random((12, 9))
RUN: dict[str, Any] = {"random_state": 0, "tol": 0, "checkpoint_every": 5, "n_restarts": 2, "solver": "mu"}


class Sample(NamedTuple):
    """A file, or a folder of files, in parts; `pack` makes of the parts what stands at each relative path."""

    suffix: str
    parts: Parts
    pack: Callable[[Parts], Parts]
    key: str | None = None


def _matrix(rng: Rng, dtypes: tuple[str, ...] = NUMBERS) -> Any:
    shape = tuple(rng.integers(1, 40, 2))
    numbers = rng.gamma(1.0, 10.0, shape) * (rng.random(shape) < rng.choice([0.1, 0.5, 1.0]))
    return np.asarray(numbers.clip(0, 250), dtype=str(rng.choice(dtypes)), order=str(rng.choice(["C", "F"])))  # type: ignore[call-overload]


def _sparse(rng: Rng) -> Any:
    import scipy.sparse

    return scipy.sparse.csr_array(_matrix(rng, ("<f8", "<f4", "<i4")))


def _same(parts: Parts) -> Parts:
    return parts


def _whole(suffix: str, content: bytes, key: str | None = None) -> Sample:
    return Sample(suffix, {WHOLE: content}, _same, key)


def table(rng: Rng) -> Sample:
    separator = str(rng.choice([",", "\t"]))
    values, end = _matrix(rng, ("<f8", "<i4")), str(rng.choice(["\n", "\r\n"]))
    form = str(rng.choice(["{:g}", "{:.17g}", '"{:g}"', " {:.3e} "]))
    lines = [[form.format(x) if rng.random() < 0.98 else "NA" for x in row] for row in values]
    if rng.random() < 0.5:
        lines = [[f"s{i}", *line] for i, line in enumerate(lines)]
    if rng.random() < 0.5:
        lines = [[f"g{j}" for j in range(len(lines[0]))], *lines]
    text = end.join(separator.join(line) for line in lines) + end * int(rng.integers(3))
    encoding = str(rng.choice(["utf-8", "utf-8-sig"]))
    return _whole(".csv" if separator == "," else ".tsv", text.encode(encoding))


def npy(rng: Rng) -> Sample:
    return _whole(".npy", _npy(_matrix(rng), rng))


def _npy(array: Any, rng: Rng) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version=[(1, 0), (2, 0)][int(rng.integers(2))])
    return file.getvalue()


def npz(rng: Rng) -> Sample:
    names = ["V"] if rng.random() < 0.5 else ["V", "other"]
    parts = {f"{name}.npy": _npy(_matrix(rng), rng) for name in names}
    return Sample(".npz", parts, _zipped(rng), "V" if len(parts) > 1 else None)


def sparse_npz(rng: Rng) -> Sample:
    import scipy.sparse

    file = io.BytesIO()
    stored = _sparse(rng).asformat(str(rng.choice(["csr", "csc", "coo", "bsr", "dia"])))
    scipy.sparse.save_npz(file, stored, compressed=False)
    return Sample(".npz", _members(file), _zipped(rng))


def factors(rng: Rng) -> Sample:
    arrays = {"W": rng.random((9, 3)), "H": rng.random((3, 7))}
    if rng.random() < 0.5:
        return Sample(".npz", {f"{name}.npy": _npy(x, rng) for name, x in arrays.items()}, _zipped(rng))
    import safetensors.numpy

    content = safetensors.numpy.save(arrays, metadata={"version": "1"})
    end = 8 + int.from_bytes(content[:8], "little")
    return Sample(".safetensors", {"header": content[8:end], "data": content[end:]}, _with_header)


def _with_header(parts: Parts) -> Parts:
    return {WHOLE: len(parts["header"]).to_bytes(8, "little") + parts["header"] + parts["data"]}


def _members(file: io.BytesIO) -> Parts:
    with zipfile.ZipFile(file) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


def _zipped(rng: Rng) -> Callable[[Parts], Parts]:
    method = int(rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))

    def pack(parts: Parts) -> Parts:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as zipped:
            for name, content in parts.items():
                zipped.writestr(name, content)
        return {WHOLE: file.getvalue()}

    return pack


def market(rng: Rng) -> Sample:
    V = _matrix(rng, ("<f8", "<f4", "<i4"))
    symmetric = V.shape[0] == V.shape[1] or rng.random() < 0.2
    V = V[:, :1] @ V[:, :1].T if symmetric else V
    kind, end = "integer" if V.dtype.kind == "i" else "real", str(rng.choice(["\n", "\r\n"]))
    within = [(i, j) for j in range(V.shape[1]) for i in range(j if symmetric else 0, V.shape[0])]
    if rng.random() < 0.5:
        lines = [f"{V.shape[0]} {V.shape[1]}", *(f"{V[place]}" for place in within)]
        head = f"%%MatrixMarket matrix array {kind} {'symmetric' if symmetric else 'general'}"
    else:
        stored = [(i, j) for i, j in within if V[i, j]]
        kind = kind if rng.random() < 0.8 else "pattern"
        lines = [f"{V.shape[0]} {V.shape[1]} {len(stored)}"]
        lines += [f"{i + 1} {j + 1} {V[i, j]}"[: -len(f" {V[i, j]}") if kind == "pattern" else None] for i, j in stored]
        head = f"%%MatrixMarket matrix coordinate {kind} {'symmetric' if symmetric else 'general'}"
    comments = ["% of somebody"] * int(rng.integers(3))
    return _whole(".mtx", (end.join([head, *comments, *lines]) + end * int(rng.integers(3))).encode())


def hdf5(rng: Rng) -> Sample:
    import h5py

    kind = str(rng.choice(["dense", "two", "sparse", "h5ad"]))
    options: dict[str, Any] = {}
    if rng.random() < 0.6:
        options = {"chunks": True, "compression": [None, "gzip", "lzf"][int(rng.integers(3))]}
        options |= {"shuffle": bool(rng.random() < 0.5), "fletcher32": bool(rng.random() < 0.3)}
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver=str(rng.choice(["earliest", "latest"]))) as file:
        if kind in ("dense", "two"):
            file.create_dataset("V", data=_matrix(rng), **options)
            if kind == "two":
                file.create_group("other")["x"] = rng.random(3)
        else:
            place = file.create_group("X") if kind == "h5ad" else file
            V = _sparse(rng).asformat(str(rng.choice(["csr", "csc"])))
            place.attrs["shape"], place.attrs["encoding-type"] = V.shape, f"{V.format}_matrix"
            for name in ("data", "indices", "indptr"):
                part = getattr(V, name)
                place.create_dataset(name, data=part, **(options if part.size else {}))
        if kind == "h5ad":
            for axis, length in zip(("obs", "var"), V.shape, strict=True):
                group = file.create_group(axis)
                group.attrs["_index"] = "_index"
                group["_index"] = [f"name {i}" for i in range(length)]
    return _whole(".h5ad" if kind == "h5ad" else ".h5", buffer.getvalue(), "V" if kind == "two" else None)


def zarr(rng: Rng) -> Sample:
    library: Any = importlib.import_module("zarr")

    version = int(rng.choice([2, 3]))
    store: dict[str, Any] = {}
    options: dict[str, Any] = {"zarr_format": version}
    if version == 3:
        codecs = library.codecs
        compressors = [None, codecs.GzipCodec(), codecs.ZstdCodec(), codecs.BloscCodec()]
    else:
        numcodecs: Any = importlib.import_module("numcodecs")
        compressors = [None, numcodecs.Zlib(), numcodecs.Zstd(), numcodecs.Blosc(), numcodecs.LZ4(), numcodecs.BZ2()]
    if rng.random() < 0.7:
        options["compressors"] = compressors[int(rng.integers(len(compressors)))]
    memory = library.storage.MemoryStore(store)
    if rng.random() < 0.6:
        V = _matrix(rng)
        chunks = tuple(int(-(-length // 2)) for length in V.shape)
        if version == 3 and rng.random() < 0.3:
            options["shards"] = tuple(2 * c for c in chunks)
        library.create_array(memory, data=np.ascontiguousarray(V), chunks=chunks, **options)
    else:
        group = library.open_group(memory, mode="w", zarr_format=version)
        V = _sparse(rng)
        group.attrs["shape"] = [int(length) for length in V.shape]
        for name in ("data", "indices", "indptr"):
            if getattr(V, name).size:
                group.create_array(name, data=getattr(V, name), **{k: v for k, v in options.items() if k[0] != "z"})
    return Sample(".zarr", {name: bytes(content.to_bytes()) for name, content in store.items()}, _same)


def picture(rng: Rng) -> Sample:
    import PIL.Image

    kind = str(rng.choice(["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP"]))
    mode = str(rng.choice(["L", "RGB"] if kind in ("JPEG", "WEBP", "BMP") else ["L", "RGB", "P", "1"]))
    image = PIL.Image.fromarray(rng.integers(0, 256, (*rng.integers(1, 40, 2), 3), dtype="uint8")).convert(mode)
    options: dict[str, Any] = {}
    if kind == "TIFF":
        options["compression"] = str(
            rng.choice(["raw", "tiff_lzw", "tiff_deflate", "packbits", "group4"][: 4 + (mode == "1")])
        )
    several = kind in ("GIF", "TIFF", "WEBP") and rng.random() < 0.3
    if several:
        options |= {"save_all": True, "append_images": [image.rotate(90)]}
    file = io.BytesIO()
    image.save(file, format=kind, **options)
    suffix = {"JPEG": ".jpg", "TIFF": ".tif"}.get(kind, f".{kind.lower()}")
    if kind == "PNG":
        return Sample(suffix, _chunks(file.getvalue()), _png)
    return _whole(suffix, file.getvalue(), "1" if several else None)


def _chunks(content: bytes) -> Parts:
    """The chunks of a PNG by their number and name, the pixels as they are before they are compressed."""
    parts, at = dict[str, bytes](), 8
    while at < len(content):
        length, name = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8].decode()
        data = content[at + 8 : at + 8 + length]
        parts[f"{len(parts)} {name}"] = zlib.decompress(data) if name == "IDAT" else data
        at += 12 + length
    return parts


def _png(parts: Parts) -> Parts:
    content = b"\x89PNG\r\n\x1a\n"
    for name, part in parts.items():
        kind = name.split()[1].encode()
        data = zlib.compress(part) if kind == b"IDAT" else part
        content += len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
    return {WHOLE: content}


@functools.cache
def _kept(name: str) -> storage.Stored:
    """A checkpoint at iteration 10 of the run that goes on from it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        nmf(V, 3, max_iter=10, checkpoint=path, **RUN)
        return storage.read(path)


def checkpoint(rng: Rng) -> Sample:
    """Its header can be damaged, and the checksum fits again; an array is now and then another one."""
    suffix = str(rng.choice(storage.SUFFIXES))
    stored = _kept("run.npz")
    arrays = dict(stored.arrays)
    if rng.random() < 0.5:
        name = str(rng.choice(sorted(arrays)))
        x = arrays.pop(name)
        others = [None, x[..., :1], x.T, x.astype("f4"), x.astype("i8"), x.astype("c8"), x * np.nan, -x, x[0], x[:0]]
        other = others[int(rng.integers(len(others)))]
        if other is not None:
            arrays[name if rng.random() < 0.9 else "x"] = other

    def pack(parts: Parts) -> Parts:
        header = parts["header"].decode(errors="replace").encode(errors="replace").decode()
        texts = {"header": header, "checksum": storage._checksum(header, arrays)}
        if suffix == ".zarr":
            with tempfile.TemporaryDirectory() as folder:
                storage._write_zarr(Path(folder), arrays, texts)
                files = (file for file in Path(folder).rglob("*") if file.is_file())
                return {str(file.relative_to(folder)): file.read_bytes() for file in files}
        file = io.BytesIO()
        archive(suffix, arrays, texts)(file)
        return {WHOLE: file.getvalue()}

    header = json.dumps({"format": storage.FORMAT, **stored.header}).encode()
    return Sample(suffix, {"header": header}, pack)


def _of_kind(kind: kinds.Kind, V: Any) -> Sample:
    """A file of a kind, or all files of its folder."""
    rows, columns = ([f"{name} {i}" for i in range(length)] for name, length in zip("rc", V.shape, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / kind.name
        kind.write(path, kinds.Given(V, rows, columns))
        suffix = "".join(path.suffixes)
        if path.is_file():
            return _whole(suffix, path.read_bytes(), kind.key)
        parts = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
        return Sample(suffix, parts, _same, kind.key)


def _some_of(*names: str) -> Callable[[Rng], Sample]:
    some = [kind for kind in kinds.KINDS if kind.name in names]

    def make(rng: Rng) -> Sample:
        return _of_kind(some[int(rng.integers(len(some)))], np.asarray(_matrix(rng, ("<f8",)), order="C"))

    return make


def sheet(rng: Rng) -> Sample:
    """A workbook, whose parts are damaged before they are packed."""
    content = io.BytesIO(_some_of("V.xlsx")(rng).parts[WHOLE])
    return Sample(".xlsx", _members(content), _zipped(rng))


def deep_picture(rng: Rng) -> Sample:
    """A picture with more bits than Pillow keeps."""
    import tifffile

    pixels = rng.integers(0, 2**16, (*rng.integers(1, 20, 2), 3), dtype="<u2")
    if rng.random() < 0.4:
        parts = _chunks(pictures.png(pixels, int(rng.integers(5))))
        return Sample(".png", parts, _png)
    file = io.BytesIO()
    dtype = str(rng.choice(["<u2", ">u2", "<f8", "<f4", "<u4", "<i8"]))
    several = rng.random() < 0.3
    array = (pixels[..., 0] if rng.random() < 0.5 else pixels).astype(dtype)
    options: dict[str, Any] = {"photometric": "rgb" if array.ndim == 3 else "minisblack"}
    options["compression"] = None if rng.random() < 0.5 else "zlib"
    tifffile.imwrite(file, np.stack([array, array]) if several else array, **options)
    return _whole(".tif", file.getvalue(), "all" if several else None)


MAKERS: dict[str, Callable[[Rng], Sample]] = {
    "table": table,
    "npy": npy,
    "npz": npz,
    "sparse npz": sparse_npz,
    "mtx": market,
    "hdf5": hdf5,
    "zarr": zarr,
    "picture": picture,
    "text": _some_of("V.txt", "V.all", "V.csv.gz", "V.tsv.gz", "V.mtx.gz"),
    "columns": _some_of("V.parquet", "V.feather"),
    "sheet": sheet,
    "matlab": _some_of("V.mat", "hdf5.mat"),
    "sound": _some_of("V.wav"),
    "anndata": _some_of("V.h5ad", "records.h5ad", "categories.h5ad", "two.zarr", "three.zarr"),
    "loom and 10x": _some_of("V.loom", "tenx.h5", "filtered_feature_bc_matrix", "hg19"),
    "deep picture": deep_picture,
    "factors": factors,
    "checkpoint": checkpoint,
}
