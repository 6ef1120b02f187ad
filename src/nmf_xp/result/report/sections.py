"""What the page says of the factorization as a whole: its numbers, its fit, its way there, and how it was asked for."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.problem.overdispersed import NegativeBinomial
from nmf_xp.result.display import falls_far, loss_name
from nmf_xp.result.report import charts, images
from nmf_xp.result.report.markup import name, pairs
from nmf_xp.result.report.parts import SAME
from nmf_xp.result.status import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nmf_xp.result.report.parts import Part
    from nmf_xp.result.report.stored import Stored

LISTED = 10  # rows that are trusted least
TRUSTED = 0.5  # the weight below which a row is listed
TAIL = 3  # checks at least of which the last half is drawn once more


def summary(stored: Stored, title: str) -> str:
    """The title, and the numbers that say how it went."""
    m, n, r = stored.W.shape[0], stored.H.shape[1], stored.H.shape[0]
    tiles = {"rows x columns": f"{m} x {n}", "components": str(r)}
    divergence, explained = stored.number("divergence"), _explained(stored)
    if divergence is not None:
        tiles["divergence"] = f"{divergence:.6g}"
    if explained is not None:
        tiles["explained"] = f"{explained:.1%}"
    n_iter = stored.counted("n_iter")
    if n_iter is not None:
        tiles["iterations"] = f"{n_iter:.0f}"
    ended = stored.texts.get("status", "")
    if ended:
        tiles["ended"] = ended.lower().replace("_", " ")
    boxes = "".join(
        f'<div class="tile"><span class="quiet small">{k}</span><b>{name(v)}</b></div>' for k, v in tiles.items()
    )
    why = "" if ended not in Status.__members__ else f"<p>It ended because {html.escape(Status[ended].message)}.</p>"
    return (
        f"<header><h1>{name(title)}</h1>"
        '<p class="quiet">V ~ W @ H: each row of V is a sum of the components, the rows of H, and W says how much of '
        f'each.</p></header>\n<div class="tiles">{boxes}</div>{why}'
    )


def settings(stored: Stored) -> str:
    """How the factorization was asked for."""
    texts = stored.texts
    said = {"input": texts.get("input", ""), "loss": "", "solver": texts.get("solver", "")}
    if "beta" in texts:
        try:
            said["loss"] = loss_name(float(texts["beta"]))
            noise = stored.said("noise", plain=False)
            said["loss"] = str(NegativeBinomial(**noise)) if noise else said["loss"]
        except (TypeError, ValueError):
            said["loss"] = texts["beta"]
    said["seed"] = texts.get("random_state", "").replace("None", "none was given")
    given = stored.said("options")
    if given.pop("solver", None) == "auto":
        said["solver"] += ", chosen for this loss"
    said |= {str(key).replace("_", " "): _value(value) for key, value in given.items()}
    return f"<h2>Settings</h2>{pairs({key: value for key, value in said.items() if value})}"


def convergence(stored: Stored, parts: list[Part]) -> str:
    """The objective, check by check, its tail once more, and what other starts came to."""
    history = [y for y in stored.series("history") if np.isfinite(y)]
    if len(history) > 1:
        curves = _curves(stored, history)
    else:
        curves = "<p>Nothing was checked between the start and the end (tol 0), so there is no curve.</p>"
    return f"<h2>Convergence</h2>{curves}{_restarts(stored, parts)}"


def _curves(stored: Stored, history: list[float]) -> str:
    """The whole curve, and its last half on a scale of its own, where all that was left looks flat in the first."""
    every, n_iter = stored.counted("check_every"), stored.counted("n_iter")
    x, label = [float(i) for i in range(len(history))], "check (0 is the start)"
    if every is not None and n_iter is not None:
        x, label = [min(i * every, n_iter) for i in x], "iteration"
    log = falls_far(history)
    axis = " The vertical axis is logarithmic." if log else ""
    figures = [
        (
            charts.line_chart(x, history, x_label=label, y_label="objective", log=log),
            f"The divergence plus the penalties. {_last_step(history)}{axis}",
        )
    ]
    half = len(history) // 2
    if len(history) - half >= TAIL:
        tail = charts.line_chart(x[half:], history[half:], x_label=label, y_label="objective, the last half", log=False)
        fell = (history[half] - history[-1]) / (history[0] - history[-1] or 1.0)
        figures.append((tail, f"The last half, on a scale of its own: {100 * fell:.1g} % of the whole fall."))
    drawn = (f"<figure>{chart}<figcaption>{caption}</figcaption></figure>" for chart, caption in figures)
    return f'<div class="curves">{"".join(drawn)}</div>'


def _restarts(stored: Stored, parts: list[Part]) -> str:
    """Where other starts ended, and which components they found again."""
    ends = [y for y in stored.series("restart_objectives") if np.isfinite(y)]
    if len(ends) < 2:
        return ""
    label = f"The objectives of {len(ends)} restarts, from {min(ends):.6g} to {max(ends):.6g}"
    caption = f"Where {len(ends)} random starts ended; the least, filled, is the result."
    strip = f"<figure>{charts.dot_strip(ends, label=label)}<figcaption>{caption}</figcaption></figure>"
    again = stored.cells("restart_cosines")
    if again is None or parts[0].found is None:
        return strip
    others, whole = len(again), int((again >= SAME).all(axis=1).sum())
    least = min(parts, key=lambda part: part.found or 0)
    words = f"{whole} of the {others} other starts found all {len(parts)} components again"
    words += "" if whole == others else f"; {least.name} was found by {least.found} of them, the fewest"
    meant = (
        f"A component is found again where its matrix w h has a cosine of at least {SAME:g} with the one that is "
        "matched with it. What other starts do not find is no firm ground."
    )
    return f'{strip}<p>{words}.</p><p class="quiet small">{meant}</p>'


def fit(stored: Stored) -> str:
    """How close the model is: numbers, and V beside WH where the file has V's cells."""
    said = {}
    divergence, objective = stored.number("divergence"), stored.number("objective")
    if divergence is not None:
        said["divergence"] = f"{divergence:.6g}"
    if objective is not None and objective != divergence:
        said["with the penalties"] = f"{objective:.6g}"
    explained = _explained(stored)
    reference = stored.number("reference") if stored.number("explained") is None else None
    if explained is not None:
        of = "the means of its columns" if reference is None else f"its own mean, which is {reference:.6g}"
        said["explained"] = f"{explained:.2%} of the divergence of V from {of}"
    residual = stored.number("kkt_residual")
    if residual is not None:
        said["KKT residual"] = f"{residual:.2g}: 0 at a stationary point, without unit"
    doubted = _doubted(stored)
    if doubted:
        said["least trusted rows"] = doubted
    zeros = {
        factor: float((array <= 1e-6 * array.max()).mean()) for factor, array in (("W", stored.W), ("H", stored.H))
    }
    said["next to zero"] = ", ".join(f"{x:.0%} of {factor}" for factor, x in zeros.items())
    return f"<h2>The fit</h2>{pairs(said)}{_panels(stored)}"


def _doubted(stored: Stored) -> str:
    """The rows that a robust loss trusts least, with their weights; nothing where it trusts all of them."""
    weights = stored.weights_of_rows
    if weights is None:
        return ""
    low = [i for i in np.argsort(weights, kind="stable")[:LISTED].tolist() if weights[i] < TRUSTED]
    names = stored.row_names
    found = ", ".join(f"{f'row {i}' if names is None else names[i]} ({weights[i]:.2g})" for i in low)
    more = int((weights < TRUSTED).sum()) - len(low)
    return f"{found} and {more} more" if more else found


def _panels(stored: Stored) -> str:
    data, model, gap = (stored.cells(f"{which}_cells") for which in ("data", "model", "residual"))
    if data is None or model is None or gap is None or not data.shape == model.shape == gap.shape:
        return ""
    positive = data[data > 0]
    high = float(np.percentile(positive, 99)) if positive.size else 1.0
    sizes = np.abs(gap[~np.isnan(gap)])
    far = (float(np.percentile(sizes, 99)) if sizes.size else 0.0) or high
    shades = images.scale("0", "grey", f"{high:.3g}")
    product = "W @ H" if stored.batch_effects is None else "W @ H times the effects of batches"
    figures = [
        _panel("V, the data", images.grey(data, high), shades),
        _panel(f"{product}, the model", images.grey(model, high), shades),
        _panel(
            "V - W @ H" if stored.batch_effects is None else "V - the model",
            images.difference(gap, far),
            images.scale(f"-{far:.3g}", "difference", f"{far:.3g}"),
        ),
    ]
    m, n = stored.W.shape[0], stored.H.shape[1]
    means = "" if data.shape == (m, n) else f" A point is the mean over some of the {m} rows and {n} columns."
    gaps = " Light blue is not observed." if np.isnan(data).any() else ""
    caption = f'<p class="quiet small">Rows from top to bottom. The scales end at the 99th percentile.{means}{gaps}</p>'
    return f'<div class="panels">{"".join(figures)}</div>{caption}'


def _panel(title: str, uri: str, scale: str) -> str:
    image = f'<img class="shades" alt="{title}" src="{uri}">'
    return f"<figure><h3>{title}</h3>{image}<figcaption>{scale}</figcaption></figure>"


def environment(stored: Stored) -> str:
    """Where and with what it ran."""
    seconds = stored.counted("seconds")
    said = {
        "nmf_xp": stored.texts.get("version", ""),
        "ran on": stored.texts.get("ran_on", ""),
        "time": "" if seconds is None else f"{seconds:.3g} s",
        "date": stored.texts.get("written", ""),
    }
    said |= {str(key): _value(value) for key, value in stored.said("environment").items()}
    return f"<h2>Environment</h2>{pairs({key: value for key, value in said.items() if value})}"


def _explained(stored: Stored) -> float | None:
    """The share of the divergence from the mean that the model takes away; None where it is not known.

    Files of earlier versions have the divergence from one mean of all entries instead.
    """
    known = stored.number("explained")
    if known is not None:
        return known if -float("inf") < known < float("inf") else None
    divergence, reference = stored.number("divergence"), stored.number("reference")
    if divergence is None or reference is None or not 0 < reference < float("inf") or not divergence < float("inf"):
        return None
    return 1 - divergence / reference


def _last_step(history: Sequence[float]) -> str:
    before, after = history[-2:]
    change = abs(before - after) / (abs(before) or 1.0)
    return f"Between the last two checks it {'rose' if after > before else 'fell'} by {change:.1g} of itself."


def _value(value: Any) -> str:
    """A setting in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
