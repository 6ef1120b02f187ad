"""Recordings as spectrograms: how strong each frequency is at each moment.

The window and the step are said with the matrix, whose names are the frequencies and times.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

from nmf_xp.files.matrix import Matrix
from nmf_xp.files.opening import FileError, check_fits, optional_module

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = 0.046  # of a window: 2048 samples at the rate of a CD
SHARE = 4  # of a window, that one is after the one before it
TOGETHER = 2**22  # samples that are transformed at a time


def read_sound(path: Path) -> Matrix:
    """The magnitudes of a recording: a row for each frequency, a column for each moment."""
    wavfile = optional_module("scipy.io.wavfile", "files")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of parts that are not read
        warnings.filterwarnings("error", "Reached EOF", wavfile.WavFileWarning)
        try:
            rate, samples = wavfile.read(path, mmap=True)
        except ValueError as error:
            if "greater than file size" in str(error):
                msg = f"{path}: is cut short: it declares more samples than it holds"
                raise FileError(msg) from error
            if "not compatible" not in str(error):  # as 24 bits are with a map of the file
                raise
            check_fits(path, "the recording", 2.0 * path.stat().st_size)
            rate, samples = wavfile.read(path)
    if rate <= 0 or not samples.size:
        msg = f"{path}: holds no sound: {samples.shape[0]} samples, {rate} of them in a second"
        raise FileError(msg)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    window = max(16, 2 ** round(math.log2(SECONDS * rate)))
    return _spectrogram(path, samples.reshape(-1, channels), rate, window)


def _spectrogram(path: Path, samples: Any, rate: int, window: int) -> Matrix:
    import numpy as np

    hop = window // SHARE
    count = 1 + -(-max(0, len(samples) - window) // hop)
    frequencies = window // 2 + 1
    check_fits(path, f"its spectrogram of {frequencies} x {count}", 8.0 * frequencies * count)
    values = np.empty((frequencies, count))
    weights = np.sin(np.pi * np.arange(window) / window) ** 2  # Hann's
    step = max(1, TOGETHER // window)
    for start in range(0, count, step):
        stop = min(count, start + step)
        part = _mono(samples[start * hop : (stop - 1) * hop + window])
        part = np.pad(part, (0, (stop - 1 - start) * hop + window - len(part)))
        frames = np.lib.stride_tricks.sliding_window_view(part, window)[::hop]
        values[:, start:stop] = np.abs(np.fft.rfft(frames * weights, axis=1)).T * (2 / window)
    mixed = "" if samples.shape[1] == 1 else f", the mean of {samples.shape[1]} channels"
    note = (
        f"a recording at {rate} Hz{mixed}, as its spectrogram: magnitudes of Hann windows "
        f"of {window} samples, one each {hop}; frequencies (Hz) in rows, times (s) in columns"
    )
    rows = [f"{rate * i / window:.6g} Hz" for i in range(frequencies)]
    columns = [f"{(j * hop + window / 2) / rate:.6g} s" for j in range(count)]
    return Matrix(values, rows, columns, note)


def _mono(samples: Any) -> Any:
    """The mean of the channels; of integers as shares of the greatest there are."""
    import numpy as np

    mean = samples.mean(axis=1, dtype=np.float64)
    if samples.dtype.kind == "f":
        return mean
    middle = 128.0 if samples.dtype.kind == "u" else 0.0  # of 8 bits
    return (mean - middle) / (128.0 if samples.dtype.itemsize == 1 else 2.0 ** (8 * samples.dtype.itemsize - 1))
