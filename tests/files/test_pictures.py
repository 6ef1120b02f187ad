"""Pictures: of named formats only, one page and all bits of it."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from nmf_xp.arrays import memory
from nmf_xp.files import FileError, read_matrix
from tests.files.pictures import png

if TYPE_CHECKING:
    from pathlib import Path

pillow = pytest.importorskip("PIL.Image", reason="pillow is not installed")
tifffile: Any = pytest.importorskip("tifffile", reason="tifffile is not installed")


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


COLOURS = np.random.default_rng(0).integers(0, 2**16, (7, 5, 3), dtype=np.uint16)
GREY = COLOURS @ [0.299, 0.587, 0.114]


@pytest.mark.parametrize("how", range(5))
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_keeps_them_whatever_its_filters(tmp_path: Path, how: int, channels: int) -> None:
    pixels = np.random.default_rng(channels).integers(0, 2**16, (6, 9, channels), dtype=np.uint16)
    (tmp_path / "V.png").write_bytes(png(pixels, how))
    found = read_matrix(tmp_path / "V.png").values
    expected = pixels[..., 0] if channels < 3 else pixels[..., :3] @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"planarconfig": "separate"}, {"compression": "zlib"}, {"bigtiff": True}])
def test_a_tiff_of_16_bits_a_channel_keeps_them(tmp_path: Path, options: dict[str, Any]) -> None:
    pixels = np.moveaxis(COLOURS, -1, 0) if "planarconfig" in options else COLOURS
    tifffile.imwrite(tmp_path / "V.tif", pixels, photometric="rgb", **options)
    found = read_matrix(tmp_path / "V.tif")
    np.testing.assert_allclose(found.values, GREY, rtol=1e-12)
    assert found.note == "an image of uint16, read as greyscale"


INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_a_tiff_of_integers_keeps_the_least_and_the_largest(tmp_path: Path, dtype: str, byteorder: Any) -> None:
    info = np.iinfo(dtype)
    values = np.asarray([[info.min, info.max], [1, 2]], dtype=dtype)
    tifffile.imwrite(tmp_path / "V.tif", values, byteorder=byteorder)
    found = read_matrix(tmp_path / "V.tif").values
    assert found.tolist() == values.tolist()


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "uint32", "int32", "uint16", "int16"])
def test_a_tiff_of_grey_values_keeps_its_numbers(tmp_path: Path, dtype: str) -> None:
    values = (np.random.default_rng(0).random((4, 3)) * 30000).astype(dtype) + np.asarray(1, dtype) / 3
    values = values.astype(dtype)
    tifffile.imwrite(tmp_path / "V.tif", values)
    np.testing.assert_array_equal(read_matrix(tmp_path / "V.tif").values, values)


def test_all_pages_are_a_row_each_where_that_is_said(tmp_path: Path) -> None:
    for dtype in ("uint8", "uint16", "float64"):
        stack = (np.random.default_rng(0).random((5, 4, 3)) * 200).astype(dtype)
        tifffile.imwrite(tmp_path / "V.tif", stack, photometric="minisblack")
        with pytest.raises(FileError, match="holds 5 pictures; say with --key which one, a number from 1 to 5, or all"):
            read_matrix(tmp_path / "V.tif")
        found = read_matrix(tmp_path / "V.tif", key="all")
        np.testing.assert_array_equal(found.values, stack.reshape(5, 12))
        assert found.note == "5 images of 4 x 3 grey values, each a row"
        np.testing.assert_array_equal(read_matrix(tmp_path / "V.tif", key="2").values, stack[1])
    with tifffile.TiffWriter(tmp_path / "V.tif") as writer:
        writer.write(np.zeros((4, 3), np.uint8))
        writer.write(np.zeros((5, 3), np.uint8))
    with pytest.raises(FileError, match="its picture 2 has 5 x 3 pixels, the first 4 x 3"):
        read_matrix(tmp_path / "V.tif", key="all")


def test_a_png_of_16_bits_that_is_damaged_or_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "V.png"
    whole = png(COLOURS, 4)
    head = bytearray(whole[:33])
    for place, value, message in ((28, 1, "save it without interlacing"), (23, 200, "is cut short: it declares 200")):
        changed = head.copy()
        changed[place] = value
        changed[29:33] = zlib.crc32(changed[12:29]).to_bytes(4, "big")
        path.write_bytes(bytes(changed) + whole[33:])
        with pytest.raises(FileError, match=message):
            read_matrix(path)
    path.write_bytes(png(np.zeros((200, 200, 3), np.uint16), 1))
    monkeypatch.setattr(memory, "available", lambda: 10**5)
    with pytest.raises(FileError, match="the picture takes"):
        read_matrix(path)


def test_a_picture_that_does_not_fit_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pillow.fromarray(np.zeros((100, 100), np.uint8)).save(tmp_path / "V.png")
    monkeypatch.setattr(memory, "available", lambda: 5000)
    with pytest.raises(FileError, match=r"V.png: the picture takes 0.00016 GB, and 5e-06 GB of memory are free"):
        read_matrix(tmp_path / "V.png")
