"""Pictures: of named formats only, one page and all bits of it."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
import pytest

from nmf_xp.arrays import memory
from nmf_xp.files import FileError, read_matrix

if TYPE_CHECKING:
    from pathlib import Path

pillow = pytest.importorskip("PIL.Image", reason="pillow is not installed")


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg", ".gif"])
def test_a_program_with_the_name_of_a_picture_is_not_run(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args, **_: started.append(args))
    path = tmp_path / f"V{suffix}"
    for content in (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n",
        b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
    ):
        path.write_bytes(content)
        with pytest.raises(FileError, match="it is no picture of the formats BMP, GIF, JPEG, PNG, TIFF, WEBP"):
            read_matrix(path)
    assert not started


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".png", ".webp"])
def test_of_several_pages_one_is_to_be_said(tmp_path: Path, suffix: str) -> None:
    pages = [pillow.fromarray(np.full((8, 8), 80 * i, np.uint8)) for i in range(3)]
    path = tmp_path / f"V{suffix}"
    pages[0].save(path, save_all=True, append_images=pages[1:], lossless=True)
    for key in (None, "4", "0", "x"):
        with pytest.raises(FileError, match="holds 3 pictures; say with --key which one, a number from 1 to 3"):
            read_matrix(path, key=key)
    found = read_matrix(path, key="3")
    assert np.abs(found.values.astype(int) - 160).max() <= 1
    assert found.note is not None
    assert found.note.endswith("number 3 of 3")


def _png(kind: int, channels: int) -> bytes:
    """A picture of 4 x 4 pixels with 16 bits a channel."""
    lines = b"".join(b"\0" + np.arange(4 * channels, dtype=">u2").tobytes() for _ in range(4))
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines)),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(x)) + name + x + struct.pack(">I", zlib.crc32(name + x)) for name, x in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _tiff(planes: int) -> bytes:
    """A picture of 4 x 4 pixels with three channels of 16 bits, together or plane by plane."""
    pixels = np.arange(48, dtype="<u2").tobytes()
    count = 3 if planes == 2 else 1
    tags = [(256, 3, 1, 4), (257, 3, 1, 4), (258, 3, 3, 0), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, count, 0)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 4), (279, 4, count, len(pixels)), (284, 3, 1, planes)]
    end = 8 + 2 + 12 * len(tags) + 4
    places = {258: end, 273: end + 30 if planes == 1 else end + 6, 279: len(pixels) if planes == 1 else end + 18}
    rows = [struct.pack("<HHII", tag, kind, n, places.get(tag, value)) for tag, kind, n, value in tags]
    starts = struct.pack("<6I", *(end + 30 + 32 * i for i in range(3)), *(32 for _ in range(3)))
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(rows) + struct.pack("<I", 0)
    return head + struct.pack("<3H", 16, 16, 16) + starts + pixels


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rgb.png", _png(2, 3)),
        ("rgba.png", _png(6, 4)),
        ("grey and alpha.png", _png(4, 2)),
        ("rgb.tif", _tiff(1)),
        ("planes.tif", _tiff(2)),
    ],
)
def test_colours_of_16_bits_are_not_cut_to_8(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match="holds colours of 16 bits, of which 8 would be lost"):
        read_matrix(tmp_path / name)


def test_grey_of_16_bits_keeps_them(tmp_path: Path) -> None:
    (tmp_path / "V.png").write_bytes(_png(0, 1))
    np.testing.assert_array_equal(read_matrix(tmp_path / "V.png").values, [[0, 1, 2, 3]] * 4)


def test_a_picture_that_does_not_fit_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pillow.fromarray(np.zeros((100, 100), np.uint8)).save(tmp_path / "V.png")
    monkeypatch.setattr(memory, "available", lambda: 5000)
    with pytest.raises(FileError, match=r"V.png: the picture takes 0.00016 GB, and 5e-06 GB of memory are free"):
        read_matrix(tmp_path / "V.png")
