"""What the page says, section by section. Every text from the file is escaped here, by `name` and `pairs`."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

import numpy as np

from nmf_xp.result.display import falls_far, loss_name, sparkline
from nmf_xp.result.report import charts, images
from nmf_xp.result.status import Status

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from nmf_xp.result.report.stored import Stored

POINTS = 240  # of a component's profile


def name(text: str) -> str:
    """A text from the file, escaped, whose direction of writing stays its own affair."""
    return f"<bdi>{html.escape(text)}</bdi>"


def pairs(said: dict[str, str]) -> str:
    """Names and values as a table, escaped."""
    lines = (f'<tr><th scope="row">{html.escape(key)}</th><td>{name(value)}</td></tr>' for key, value in said.items())
    return f'<table class="pairs"><tbody>{"".join(lines)}</tbody></table>'


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
        except ValueError:
            said["loss"] = texts["beta"]
    said["seed"] = texts.get("random_state", "").replace("None", "none was given")
    given = stored.said("options")
    if given.pop("solver", None) == "auto":
        said["solver"] += ", chosen for this loss"
    said |= {str(key).replace("_", " "): _value(value) for key, value in given.items()}
    return f"<h2>Settings</h2>{pairs({key: value for key, value in said.items() if value})}"


def convergence(stored: Stored) -> str:
    """The objective, check by check, and where the restarts ended."""
    history = [y for y in stored.series("history") if np.isfinite(y)]
    parts = ["<h2>Convergence</h2>"]
    if len(history) > 1:
        every, n_iter = stored.counted("check_every"), stored.counted("n_iter")
        x, label = [float(i) for i in range(len(history))], "check (0 is the start)"
        if every is not None and n_iter is not None:
            x, label = [min(i * every, n_iter) for i in x], "iteration"
        log = falls_far(history)
        chart = charts.line_chart(x, history, x_label=label, y_label="objective", log=log)
        axis = " The vertical axis is logarithmic." if log else ""
        caption = f"The divergence plus the penalties. {_last_step(history)}{axis}"
        parts.append(f"<figure>{chart}<figcaption>{caption}</figcaption></figure>")
    else:
        parts.append("<p>Nothing was checked between the start and the end (tol 0), so there is no curve.</p>")
    restarts = [y for y in stored.series("restart_objectives") if np.isfinite(y)]
    if len(restarts) > 1:
        label = f"The objectives of {len(restarts)} restarts, from {min(restarts):.6g} to {max(restarts):.6g}"
        caption = f"Where {len(restarts)} random starts ended; the least, filled, is the result."
        parts.append(f"<figure>{charts.dot_strip(restarts, label=label)}<figcaption>{caption}</figcaption></figure>")
    return "".join(parts)


def components(stored: Stored, *, n_top: int, shape: tuple[int, int] | None) -> str:
    """Each component: its share of the model, its picture, its features, and the rows that have most of it."""
    W, H = stored.W.astype(float), stored.H.astype(float)
    # Relative to the largest entries, whose sums and products may be beyond the numbers.
    amount = (W / (W.max() or 1.0)).sum(axis=0) * (H / (H.max() or 1.0)).sum(axis=1)
    share = amount / (amount.sum() or 1.0)
    cards = [
        _card(stored, W[:, k], H[k], k, float(share[k]), n_top=n_top, shape=shape)
        for k in np.argsort(-share, kind="stable").tolist()
    ]
    order = "The largest share of W @ H comes first; the number of a component is its row in H, from 0."
    return f'<h2>Components</h2><p class="quiet">{order}</p><div class="cards">{"".join(cards)}</div>'


def _card(stored: Stored, w: Any, h: Any, k: int, share: float, *, n_top: int, shape: tuple[int, int] | None) -> str:
    n, called = len(h), f"H[{k}]" if stored.component_names is None else name(stored.component_names[k])
    top = np.argsort(-h, kind="stable")[:n_top]
    largest = float(h.max())
    lines = "".join(
        f"<tr><td>{_called(stored.column_names, j, 'column')}</td><td>{charts.bar(h[j] / (largest or 1.0))}</td>"
        f"<td>{h[j]:.3g}</td></tr>"
        for j in top.tolist()
    )
    picture = ""
    if shape is not None:
        uri = images.grey(h.reshape(shape), largest)
        picture = (
            f'<img class="part shades" alt="H[{k}] as an image" src="{uri}" style="aspect-ratio:{shape[1]}/{shape[0]}">'
        )
    elif n > n_top:
        label = f"H[{k}] over the {n} columns of V, largest in column {int(top[0])}"
        picture = f'<div class="profile">{sparkline(_profile(h), label)}</div>'
    rows = np.argsort(-w, kind="stable")[: min(5, n_top)]
    most = [_called(stored.row_names, i, "row") for i in rows.tolist() if w[i] > 0]
    listed = ", ".join(most) if stored.row_names is None else f"<ul>{''.join(f'<li>{row}</li>' for row in most)}</ul>"
    return (
        f'<section class="card"><header><h3>{called}</h3>'
        f'<span class="quiet small">{share:.1%} of the model</span></header>{charts.bar(share, "share")}{picture}'
        f'<table class="features"><tbody>{lines}</tbody></table>'
        + (f'<div class="small"><span class="quiet">most of it in</span> {listed}</div>' if most else "")
        + "</section>"
    )


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
    zeros = {
        factor: float((array <= 1e-6 * array.max()).mean()) for factor, array in (("W", stored.W), ("H", stored.H))
    }
    said["next to zero"] = ", ".join(f"{x:.0%} of {factor}" for factor, x in zeros.items())
    return f"<h2>The fit</h2>{pairs(said)}{_panels(stored)}"


def _panels(stored: Stored) -> str:
    data, model, gap = (stored.cells(f"{which}_cells") for which in ("data", "model", "residual"))
    if data is None or model is None or gap is None or not data.shape == model.shape == gap.shape:
        return ""
    positive = data[data > 0]
    high = float(np.percentile(positive, 99)) if positive.size else 1.0
    sizes = np.abs(gap[~np.isnan(gap)])
    far = (float(np.percentile(sizes, 99)) if sizes.size else 0.0) or high
    ramp = np.linspace(0, 1, 64)[None, :]
    scale = _scale("0", images.grey(ramp, 1.0), f"{high:.3g}")
    figures = [
        _panel("V, the data", images.grey(data, high), scale),
        _panel("W @ H, the model", images.grey(model, high), scale),
        _panel(
            "V - W @ H",
            images.difference(gap, far),
            _scale(f"-{far:.3g}", images.difference(2 * ramp - 1, 1.0), f"{far:.3g}"),
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


def _scale(low: str, uri: str, high: str) -> str:
    return f'<div class="scale">{low}<img class="shades" alt="from {low} to {high}" src="{uri}">{high}</div>'


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


def _profile(h: Any) -> Iterable[float]:
    """A component over the columns, as the largest of neighbours where there are many, from a base of 0."""
    count = min(len(h), POINTS)
    heights = np.maximum.reduceat(h, np.arange(count) * len(h) // count)
    return [float(y) for y in heights]


def _called(names: list[str] | None, i: int, kind: str) -> str:
    """The name of a row or column, or its number."""
    return f"{kind} {i}" if names is None else name(names[i])


def _value(value: Any) -> str:
    """A setting in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
