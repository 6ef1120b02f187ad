"""By what the chunks of a zarr array are decoded, asked of its metadata before any is.

A codec for Python objects runs what the file says. So the codecs that make numbers of bytes are named here, and no
other is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nmf_xp.data.chunks import is_zarr

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

SHARDS = "sharding_indexed"  # which has codecs of its own
NUMBERS = {
    *("adler32", "astype", "bitround", "blosc", "bytes", "bz2", "cast_value", "crc32", "crc32c", "delta"),
    *("fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3", "lz4", "lzma", "packbits", "pcodec", "quantize"),
    *("scale_offset", "shuffle", "transpose", "zfpy", "zlib", "zstd", SHARDS),
}
"""The codecs of numbers, as zarr and numcodecs call them, without numcodecs' own prefix."""


def check_codecs(array: Any, others: Container[str] = ()) -> None:
    """Refuse a zarr array with a codec that is not one of numbers or `others`; all other arrays are left alone."""
    if not is_zarr(array):
        return
    names = {name: name.removeprefix("numcodecs.") for name in names_of(array)}
    unknown = sorted(name for name, plain in names.items() if plain not in NUMBERS and plain not in others)
    if unknown:
        msg = (
            f"`V` must be stored by codecs of numbers, got {', '.join(unknown)}, which may run any code; store it anew"
        )
        raise ValueError(msg)


def names_of(array: Any) -> Iterator[str]:
    """The codecs of a zarr array by their names, those within shards too."""
    return _of_all(codecs_of(array))


def codecs_of(array: Any) -> list[Any]:
    """The codecs of a zarr array; of shards those stand within one."""
    metadata = getattr(array, "metadata", array)  # before zarr 3 the array says it itself
    codecs = getattr(metadata, "codecs", None)
    if codecs is None:
        compressor = metadata.compressor
        codecs = [*(metadata.filters or ()), *(() if compressor is None else (compressor,))]
    return list(codecs)


def _of_all(codecs: Any) -> Iterator[str]:
    for codec in codecs:
        if hasattr(codec, "codec_id"):  # numcodecs
            yield str(codec.codec_id)
            continue
        said = codec.to_dict()
        yield str(said.get("name"))
        for inner in ("codecs", "index_codecs"):
            yield from _of_all(getattr(codec, inner, None) or ())
