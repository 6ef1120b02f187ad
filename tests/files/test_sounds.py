"""Recordings: their spectrograms are those of SciPy, and the settings can be read off the matrix."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nmf_xp.arrays import memory
from nmf_xp.files import FileError, read_matrix, sounds

scipy_io: Any = pytest.importorskip("scipy.io", reason="scipy is not installed")
signal: Any = pytest.importorskip("scipy.signal", reason="scipy is not installed")

RATE = 8000
TONE = np.sin(2 * np.pi * 1000 * np.arange(2 * RATE) / RATE)


def test_a_spectrogram_is_that_of_scipy_and_says_how_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = TONE + 0.1 * np.random.default_rng(0).normal(size=TONE.size)
    scipy_io.wavfile.write(tmp_path / "V.wav", RATE, samples)
    frequencies, times, expected = signal.stft(samples, RATE, nperseg=512, noverlap=384, boundary=None, padded=False)
    for together in (sounds.TOGETHER, 2000):  # a few windows at a time
        monkeypatch.setattr(sounds, "TOGETHER", together)
        found = read_matrix(tmp_path / "V.wav")
        count = expected.shape[1]
        np.testing.assert_allclose(found.values[:, :count], 2 * np.abs(expected) / 2 * 1.0, rtol=1e-9, atol=1e-12)
        assert found.row_names == [f"{f:.6g} Hz" for f in frequencies]
        assert found.column_names is not None
        assert found.column_names[:count] == [f"{t:.6g} s" for t in times]
        assert found.row_names[int(found.values.sum(axis=1).argmax())] == "1000 Hz"
        for said in ("8000 Hz", "512 samples", "one each 128", "frequencies (Hz) in rows, times (s) in columns"):
            assert said in str(found.note)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_recordings_of_all_kinds_of_samples_are_alike(tmp_path: Path, dtype: str) -> None:
    scale = {"uint8": 127, "int16": 2**15 - 1, "int32": 2**31 - 1}.get(dtype, 1)
    samples = (TONE * scale + (128 if dtype == "uint8" else 0)).astype(dtype)
    scipy_io.wavfile.write(tmp_path / "one.wav", RATE, samples)
    scipy_io.wavfile.write(tmp_path / "two.wav", RATE, np.column_stack([samples, samples]))
    one, two = (read_matrix(tmp_path / name) for name in ("one.wav", "two.wav"))
    np.testing.assert_allclose(two.values, one.values, atol=1e-12)
    assert "the mean of 2 channels" in str(two.note)
    scipy_io.wavfile.write(tmp_path / "V.wav", RATE, TONE)
    np.testing.assert_allclose(one.values, read_matrix(tmp_path / "V.wav").values, atol=0.02)


def test_what_is_shorter_than_a_window_is_one_window(tmp_path: Path) -> None:
    scipy_io.wavfile.write(tmp_path / "V.wav", RATE, TONE[:10])
    assert read_matrix(tmp_path / "V.wav").values.shape == (257, 1)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (40, 10**9, "is cut short: it declares more samples than it holds"),  # the declared size of the samples
        (24, 0, "cannot be read"),  # no samples in a second
        (20, 7, "Unknown wave file format: MULAW"),
        (36, 0x78787878, "cannot be read"),  # no samples at all
    ],
)
def test_a_recording_that_is_none_is_refused(tmp_path: Path, place: int, value: int, message: str) -> None:
    path = tmp_path / "V.wav"
    scipy_io.wavfile.write(path, RATE, (TONE * 30000).astype(np.int16))
    content = bytearray(path.read_bytes())
    struct.pack_into("<H" if place == 20 else "<I", content, place, value)
    path.write_bytes(content)
    with pytest.raises(FileError, match=message):
        read_matrix(path)


def test_a_spectrogram_that_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scipy_io.wavfile.write(tmp_path / "V.wav", RATE, TONE)
    monkeypatch.setattr(memory, "available", lambda: 10**5)
    with pytest.raises(FileError, match=r"its spectrogram of 257 x 122 takes"):
        read_matrix(tmp_path / "V.wav")


def test_recordings_that_scipy_is_tested_with_are_read_or_refused() -> None:
    folder = Path(scipy_io.__file__).parent / "tests" / "data"
    recordings = sorted(folder.glob("*.wav"))
    if not recordings:
        pytest.skip("this SciPy comes without its tests")
    read = 0
    for path in recordings:
        try:
            found = read_matrix(path)
        except FileError as error:
            assert str(error).startswith(str(path))  # noqa: PT017
            continue
        assert np.isfinite(found.values).all()
        read += 1
    assert read >= 15
