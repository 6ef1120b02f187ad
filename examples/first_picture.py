"""A picture, a sound and a text, each taken apart into three parts: the first picture of the README.

    python first_picture.py [FILE.png]

needs matplotlib, SciPy, scikit-learn (its digits) and lda (its news stories), and loads nothing from the network.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import numpy as np

from nmf_xp import nmf

Array = np.ndarray[Any, Any]

COLOURS = ("#0072B2", "#D55E00", "#009E73")  # Okabe & Ito 2008: apart for all eyes
PARTS = len(COLOURS)


class Taken(NamedTuple):
    """Something whole, and its largest parts."""

    whole: Array
    parts: list[Array]
    said: list[str]  # of the whole and of the parts


def digit() -> Taken:
    """The digit of which three strokes leave least over."""
    from sklearn.datasets import load_digits

    V = load_digits().data
    result = nmf(V, 12, beta_loss="kullback-leibler", random_state=0)
    amounts = result.W * result.H.sum(axis=1)
    top = np.argsort(-amounts, axis=1)[:, :PARTS]
    shares = np.take_along_axis(amounts, top, axis=1) / amounts.sum(axis=1, keepdims=True)
    clear = np.where(shares.min(axis=1) > 0.2, shares.sum(axis=1), 0.0)
    i = int(clear.argmax())
    parts = [(result.W[i, k] * result.H[k]).reshape(8, 8) for k in top[i]]
    return Taken(V[i].reshape(8, 8), parts, ["a picture", *(f"{share:.0%} this stroke" for share in shares[i])])


def chord() -> Taken:
    """Three notes that are played one by one, in pairs, and together, as powers of frequencies at moments."""
    import scipy.signal

    rate, seconds = 8000, 6
    t = np.arange(rate * seconds) / rate
    playing = np.asarray([[1, 0, 0, 1, 0, 1], [0, 1, 0, 1, 1, 1], [0, 0, 1, 0, 1, 1]])  # note, second
    pitches = np.asarray([262, 330, 392])
    tones = [sum(np.sin(2 * np.pi * k * pitch * t) / k for k in range(1, 7)) for pitch in pitches]
    sound = (np.asarray(tones) * playing[:, (t // 1).astype(int)] * np.exp(-2 * (t % 1))).sum(axis=0)
    sound += 0.001 * np.random.default_rng(0).normal(size=t.size)
    power = np.abs(scipy.signal.stft(sound, rate, nperseg=1024)[2]) ** 2 + 1e-10
    result = nmf(power, PARTS + 1, beta_loss="itakura-saito", n_restarts=4, max_iter=500, random_state=0)
    lowest = np.round(pitches / rate * 1024).astype(int)  # where the fundamental of each note is
    order = [int(np.argmax(result.W[i] * result.H.sum(axis=1))) for i in lowest]
    parts = [np.outer(result.W[:, k], result.H[k])[:256] for k in order]
    return Taken(power[:256], parts, ["a sound", "the note C", "the note E", "the note G"])


def story() -> tuple[Taken, list[list[str]]]:
    """The news story that is most evenly about three topics, as its words, and the words of the topics."""
    import lda.datasets

    V, words = lda.datasets.load_reuters(), np.asarray(lda.datasets.load_reuters_vocab())
    result = nmf(V, 20, beta_loss="kullback-leibler", normalize="H", n_restarts=3, random_state=0)
    shares = result.W / result.W.sum(axis=1, keepdims=True)
    top = np.argsort(-shares, axis=1)[:, :PARTS]
    least = np.take_along_axis(shares, top, axis=1).min(axis=1)
    i = int(least.argmax())
    rows = [V[i], *(result.H[k] for k in top[i])]
    first = [np.argsort(-row, kind="stable")[:6] for row in rows]
    heights = [row[best] / row[best].max() for row, best in zip(rows, first, strict=True)]
    said = ["a text", *(f"{shares[i, k]:.0%} this topic" for k in top[i])]
    return Taken(heights[0], heights[1:], said), [words[best].tolist() for best in first]


def draw(path: str) -> None:
    """Three rows: the whole, and its parts in colours."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt
    from matplotlib.colors import LinearSegmentedColormap

    maps = [LinearSegmentedColormap.from_list(colour, ["white", colour]) for colour in ("#222222", *COLOURS)]
    with mpl.rc_context({"font.size": 11, "axes.titlesize": 12}):
        figure, axes = plt.subplots(3, PARTS + 1, figsize=(9, 6.6))
        figure.set_layout_engine("constrained", w_pad=0.14, h_pad=0.08)
        pictured, sounding, (written, words) = digit(), chord(), story()
        for column, shades in enumerate(maps):
            top, middle, bottom = axes[:, column]
            top.imshow([pictured.whole, *pictured.parts][column], cmap=shades, vmin=0, vmax=16)
            heard = 10 * np.log10([sounding.whole, *sounding.parts][column] + 1e-12)
            middle.imshow(heard, cmap=shades, vmin=-85, vmax=-15, origin="lower", aspect="auto")
            heights = [written.whole, *written.parts][column]
            bottom.barh(range(len(heights)), heights, color=shades(0.35), height=0.86)
            for y, word in enumerate(words[column]):
                bottom.text(0.03, y, word, va="center")
            bottom.set(xlim=(0, 1), ylim=(len(heights) - 0.5, -0.5))
            for ax, said in ((top, pictured.said), (middle, sounding.said), (bottom, written.said)):
                ax.set(xticks=[], yticks=[], title=said[column])
                ax.spines[:].set_visible(ax is not bottom)
                ax.spines[:].set_color("#cccccc")
                if column:
                    sign = "\N{ALMOST EQUAL TO}" if column == 1 else "+"
                    ax.text(-0.11, 0.5, sign, transform=ax.transAxes, ha="center", va="center", size=20)
        figure.savefig(path, dpi=110)
    plt.close(figure)


def main(path: str = "first-picture.png") -> None:
    """Draw it."""
    draw(path)
    print(f"drawn in {path}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
