"""The report: one page that stands alone, says what the file holds, and shows what users named as text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import nmf_xp
from nmf_xp.cli import fit, main
from nmf_xp.result import agreement, report
from nmf_xp.result.report import charts, components, images, loadings
from nmf_xp.result.report.features import SCRIPT
from nmf_xp.result.report.parts import parts_of

HOSTILE = [
    "<script>document.title = 'run'</script>",
    '"><img src=x onerror="document.title=1">',
    "</td></table><h1>out</h1>",
    "a & b &amp; c",
    "'; </style><style>body{display:none}",
    "\u202eleft to right\u2066",
    "x" * 300,
    "http://example.org/picture.png",
]
VOID = {"meta", "img", "br", "line", "circle", "rect", "polyline"}
LOADING = {"src", "href", "srcset", "data", "action", "poster", "xlink:href", "background"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Parsed(HTMLParser):
    """A page as tags, texts and attributes; tags that do not nest are an error."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.styles: list[str] = []
        self.scripts: list[str] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        within = self.open[-1] if self.open else ""
        {"style": self.styles, "script": self.scripts}.get(within, self.texts).append(data)
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def table(self) -> dict[str, str]:
        """The rows of two cells, but for those of the features, which have three."""
        return {row[0]: row[1] for row in self.rows if len(row) == 2}


class Run(NamedTuple):
    """A folder with a matrix, its factors and the report about them."""

    folder: Path
    page: str
    parsed: Parsed
    V: Any


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("report")
    V = np.random.default_rng(0).poisson(4.0, (20, 8))
    quoted = ['"' + name.replace('"', '""') + '"' for name in HOSTILE]
    rows = [",".join(["id", *quoted])]
    rows += [f'"<b>row {i}</b>",' + ",".join(map(str, row)) for i, row in enumerate(V.tolist())]
    (folder / "V.csv").write_text("\n".join(rows), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        words = ["--beta-loss", "1", "--random-state", "0", "--n-restarts", "3", "--alpha-W", "0.01", "--tol", "1e-6"]
        assert main(["fit", "V.csv", "-k", "3", *words]) == 0
        assert main(["report", "V.factors.npz", "--title", "<i>My & run</i>", "--top", "8"]) == 0
    page = (folder / "V.report.html").read_text(encoding="utf-8")
    return Run(folder, page, Parsed(page), V)


def test_nothing_is_loaded_and_nothing_runs_but_what_sorts_a_table(reported: Run) -> None:
    tags = [tag for tag, _ in reported.parsed.tags]
    assert tags.count("script") == 1
    assert not {"link", "iframe", "object", "embed", "base", "form", "a"} & set(tags)
    for _, attributes in reported.parsed.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in LOADING & set(attributes):
            assert attributes[name].startswith("data:image/png;base64,")
    (style,) = reported.parsed.styles
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in reported.page.replace(HOSTILE[-1], "").replace("http-equiv", "")
    policy = next(a["content"] for tag, a in reported.parsed.tags if tag == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    (script,) = reported.parsed.scripts
    assert script == SCRIPT  # whatever the file holds
    for text, kind in ((style, "style-src"), (script, "script-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}';" in policy


def test_names_from_the_file_are_shown_as_text(reported: Run) -> None:
    texts = reported.parsed.texts
    for name in (*HOSTILE, "<i>My & run</i>"):
        assert name in texts, name
    assert sum(text.startswith("<b>row") for text in texts) == 3 * 5
    tags = [tag for tag, _ in reported.parsed.tags]
    assert (tags.count("style"), tags.count("h1"), tags.count("i")) == (1, 1, 0)


def test_it_says_what_the_file_holds(reported: Run) -> None:
    with np.load(reported.folder / "V.factors.npz") as file:
        stored = dict(file)
    result = nmf_xp.nmf(reported.V, 3, beta_loss=1, random_state=0, n_restarts=3, alpha_W=0.01, tol=1e-6)
    assert result.restarts is not None
    np.testing.assert_array_equal(stored["restart_objectives"], result.restarts.objective)
    np.testing.assert_allclose(stored["data_cells"], reported.V, rtol=1e-6)
    np.testing.assert_allclose(stored["residual_cells"], reported.V - result.W @ result.H, rtol=1e-4, atol=1e-5)
    mean = np.full((20, 1), reported.V.mean())
    reference = float(nmf_xp.beta_divergence(reported.V + 0.0, mean, np.ones((1, 8)), beta_loss=1))
    assert float(stored["reference"]) == pytest.approx(reference)
    assert json.loads(str(stored["options"]))["alpha_W"] == 0.01
    said = reported.parsed.table()
    assert said["loss"] == "kullback-leibler (beta 1)"
    assert said["solver"] == f"{result.solver}, chosen for this loss"
    assert said["n restarts"] == "3"
    assert said["seed"] == "0"
    assert said["numpy"] == np.__version__
    assert said["with the penalties"] == f"{result.objective:.6g}"
    assert float(stored["explained"]) == pytest.approx(result.explained)
    assert said["explained"] == f"{result.explained:.2%} of the divergence of V from the means of its columns"
    assert said["input"] == "V.csv"


def test_components_stand_by_share_with_their_features_in_order(reported: Run) -> None:
    with np.load(reported.folder / "V.factors.npz") as stored:
        W, H = stored["W"], stored["H"]
    amount = W.sum(axis=0) * H.sum(axis=1)
    order = np.argsort(-amount)
    texts = reported.parsed.texts
    headings = [text for text in texts if re.fullmatch(r"H\[\d\]", text)]
    assert headings[:3] == headings[3:6] == [f"H[{k}]" for k in order]  # cards and strips
    for k in order:
        after = texts[texts.index(f"H[{k}]") :]
        assert after[1] == f"{amount[k] / amount.sum():.1%} of the model"
        meant = [j for j in np.argsort(-H[k], kind="stable") if H[k, j] > 0]
        features = [text for text in after if text in HOSTILE][: len(meant)]
        assert features == [HOSTILE[j] for j in meant]
        percent = [float(text.removesuffix("%")) for text in after[2:] if re.fullmatch(r"[\d.]+%", text)][: len(meant)]
        np.testing.assert_allclose(percent, 100 * H[k, meant] / H[k].sum(), atol=0.051)
        assert f"<b>row {W[:, k].argmax()}</b>" == next(text for text in after if text.startswith("<b>"))


def test_the_charts_have_a_point_for_every_number(reported: Run) -> None:
    with np.load(reported.folder / "V.factors.npz") as stored:
        history, n_iter = stored["history"], float(stored["n_iter"])
    lines = [a for tag, a in reported.parsed.tags if tag == "polyline" and a.get("class") == "line"]
    iterations, half = np.minimum(10 * np.arange(len(history)), n_iter), len(history) // 2
    assert len(lines) == 2
    for line, part in zip(lines, (slice(None), slice(half, None)), strict=True):  # all of it, and its tail
        points = np.asarray([list(map(float, point.split(","))) for point in line["points"].split()])
        assert len(points) == len(history[part])
        for drawn, meant in ((points[:, 0], iterations[part]), (-points[:, 1], history[part])):
            np.testing.assert_allclose(drawn, np.polyval(np.polyfit(meant, drawn, 1), meant), atol=0.2)
        assert points[:, 1].max() - points[:, 1].min() > 50  # what is left to fall is seen
    rings = [a for tag, a in reported.parsed.tags if tag == "circle" and a["class"] == "ring"]
    assert len(rings) == 2
    pictures = [a for tag, a in reported.parsed.tags if tag == "img"]
    assert [a["alt"] for a in pictures if not a["alt"].startswith(("from", "H["))] == [
        "V, the data",
        "W @ H, the model",
        "V - W @ H",
    ]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (79954.2, 489000.0), (-3e-9, 2e-9), (1e12, 1.0001e12)])
def test_ticks_are_round_few_and_span_the_range(low: float, high: float) -> None:
    found = charts.ticks(low, high)
    assert 3 <= len(found) <= 8
    assert found[0] <= low
    assert found[-1] >= high
    step = found[1] - found[0]
    assert step / 10 ** np.floor(np.log10(step) + 1e-9) == pytest.approx(
        round(step / 10 ** np.floor(np.log10(step) + 1e-9)), rel=1e-3
    )


def test_logarithmic_ticks_are_powers_of_ten_that_span_the_range() -> None:
    assert charts.powers_of_ten([40.0, 3e-7]) == [-7, -5, -3, -1, 1, 3]
    assert charts.powers_of_ten([30.0, 2.0, 0.0]) == [0, 1, 2]
    assert charts.powers_of_ten([1.0, 5e-324])[0] == -324  # no number of ours is that small a power
    drawn = charts.line_chart([0, 1, 2], [100.0, 10.0, 1.0], x_label="", y_label="", log=True)
    heights = [float(point.split(",")[1]) for point in re.findall(r'points="(.+?)"', drawn)[0].split()]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)


def test_zero_is_at_the_bottom_of_a_logarithmic_axis_and_is_named() -> None:
    drawn = charts.line_chart([0, 1, 2, 3], [100.0, 1.0, 0.01, 0.0], x_label="", y_label="f", log=True)
    heights = [float(point.split(",")[1]) for point in re.findall(r'points="(.+?)"', drawn)[0].split()]
    assert heights == sorted(heights)  # downwards on a page
    assert heights[2] - heights[1] == pytest.approx(heights[1] - heights[0], abs=0.2)
    assert heights[3] - heights[2] == pytest.approx((heights[1] - heights[0]) / 2, abs=0.2)  # one decade
    (named,) = re.findall(r'y="(\S+)" text-anchor="end">0<', drawn)
    assert float(named) == pytest.approx(heights[3] + 4, abs=0.11)
    assert "from 100 to 0 over 4 points" in drawn


def test_a_png_is_read_by_others_as_it_was_meant() -> None:
    pillow = pytest.importorskip("PIL.Image", reason="pillow is not installed")

    def pixels(uri: str) -> Any:
        data = base64.b64decode(uri.removeprefix("data:image/png;base64,"))
        return np.asarray(pillow.open(BytesIO(data))).astype(int)

    values = np.asarray([[0.0, 1.0, 4.0], [2.0, 9.0, np.nan]])
    shades = pixels(images.grey(values, 4.0))
    np.testing.assert_array_equal(shades[..., 0].ravel()[:5], [255, 191, 0, 128, 0])
    np.testing.assert_array_equal(shades[1, 2], images.UNOBSERVED)
    hues = pixels(images.difference(np.asarray([[-9.0, -2.0, 0.0, 2.0]]), 2.0))[0]
    np.testing.assert_array_equal(hues, [images.DIFFERENCE[i] for i in (0, 0, 2, 4)])


def test_components_come_first_and_settings_last(reported: Run) -> None:
    headings = re.findall(r"<h2>(.*?)</h2>", reported.page)
    assert headings == ["Components", "Rows", "Columns", "The fit", "Convergence", "Settings", "Environment"]


def test_all_bars_have_one_scale(reported: Run) -> None:
    with np.load(reported.folder / "V.factors.npz") as stored:
        H = stored["H"]
    shares = H / H.sum(axis=1, keepdims=True)
    bars = re.findall(r'<svg class="bar " aria-hidden="true"><rect width="([\d.]+)%', reported.page)
    drawn = np.sort([float(width) for width in bars])
    np.testing.assert_allclose(drawn, np.sort(100 * shares.ravel() / shares.max())[-len(drawn) :], atol=0.051)


def test_no_line_leads_through_columns_without_an_order() -> None:
    assert components.in_order(["400", "450.5", "500"])
    assert components.in_order(["2000", "1999"])
    for names in (None, ["a", "b"], ["1", "3", "2"], ["1", "1"], ["x"], ["nan", "1"]):
        assert not components.in_order(names)


def drawn_profiles(path: Path, names: list[str] | None) -> tuple[int, int]:
    """How many lines and how many bars stand for components, of which there are two."""
    V = np.random.default_rng(0).poisson(4.0, (20, 12))
    nmf_xp.nmf(V, 2, random_state=0).named(columns=names).report(path, n_top=3)
    page = path.read_text(encoding="utf-8")
    return page.count('<div class="profile"><svg role'), page.count('<div class="profile"><svg class="spikes"')


def test_columns_are_bars_unless_they_are_numbers_in_order(tmp_path: Path) -> None:
    assert drawn_profiles(tmp_path / "years.html", [str(year) for year in range(2000, 2012)]) == (2, 0)
    assert drawn_profiles(tmp_path / "words.html", list("abcdefghijkl")) == (0, 2)
    assert drawn_profiles(tmp_path / "none.html", None) == (0, 2)
    assert charts.spikes([0.0, 2.0, 1.0], "x").count("M") == 2


def test_the_rows_are_sorted_by_what_leads_in_them() -> None:
    shares = np.asarray([[0.9, 0.2, 0.6, 0.0], [0.1, 0.8, 0.4, 0.0]])
    leads, order = loadings.sorted_rows(shares)
    assert leads.tolist() == [0, 1, 0, -1]  # nothing is in the last row
    assert order.tolist() == [0, 2, 1, 3]
    many = loadings.cells(np.arange(1003.0)[None, :])
    assert many.shape == (1, loadings.CELLS)
    np.testing.assert_allclose(many[0, 0], np.arange(1003 // loadings.CELLS).mean())


def test_the_strips_show_w_and_how_many_rows_each_component_leads_in(reported: Run) -> None:
    pillow = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    with np.load(reported.folder / "V.factors.npz") as stored:
        W, H = stored["W"], stored["H"]
    amounts = W * H.sum(axis=1)
    shares = amounts / amounts.sum(axis=1, keepdims=True)
    order = np.argsort(-W.sum(axis=0) * H.sum(axis=1))
    rows = [row for row in reported.parsed.rows if len(row) == 3 and row[1] == "" and row[0].startswith("H[")]
    led = [int((shares.argmax(axis=1) == k).sum()) for k in order]
    assert [(row[0], int(row[2])) for row in rows] == [(f"H[{k}]", n) for k, n in zip(order, led, strict=True)]
    strips = [a["src"] for _, a in reported.parsed.tags if a.get("class") == "strip shades"]
    drawn = [np.asarray(pillow.open(BytesIO(base64.b64decode(s.partition(",")[2]))))[0, :, 0] for s in strips]
    for k, strip in zip(order, drawn, strict=True):
        meant = np.sort(255 - 255 * shares[:, k] / shares.max())
        np.testing.assert_allclose(np.sort(strip.astype(float)), meant, atol=0.51)


def test_a_table_of_columns_holds_percent_of_each_component(reported: Run) -> None:
    with np.load(reported.folder / "V.factors.npz") as stored:
        W, H = stored["W"], stored["H"]
    order = np.argsort(-W.sum(axis=0) * H.sum(axis=1))
    rows = {row[0]: row[1:] for row in reported.parsed.rows if len(row) == 4}
    assert rows.pop("column") == [f"H[{k}]" for k in order]
    assert set(rows) == set(HOSTILE)
    percent = 100 * H[order] / H[order].sum(axis=1, keepdims=True)
    for j, name in enumerate(HOSTILE):
        np.testing.assert_allclose([float(x) for x in rows[name]], percent[:, j], atol=0.0051)


def test_the_page_says_what_other_starts_found_again(reported: Run) -> None:
    with np.load(reported.folder / "V.factors.npz") as stored:
        again, ends = stored["restart_cosines"], stored["restart_objectives"]
    assert again.shape == (2, 3)
    settings: dict[str, Any] = {"beta_loss": 1, "random_state": 0, "n_restarts": 3, "alpha_W": 0.01, "tol": 1e-6}
    result = nmf_xp.nmf(reported.V, 3, keep_restarts=True, **settings)
    assert result.restarts is not None
    other = result.restarts[next(i for i in range(3) if i != int(np.argmin(ends)))]
    matrices = [[np.outer(x.W[:, k], x.H[k]).ravel() for k in range(3)] for x in (result, other)]
    units = [np.asarray([x / np.linalg.norm(x) for x in one]) for one in matrices]
    table = units[0] @ units[1].T
    assert all(np.isclose(table[k], again[0, k], atol=1e-6).any() for k in range(3))
    assert table.max() == pytest.approx(again[0].max())  # what is most alike is matched first
    whole = int((again >= 0.9).all(axis=1).sum())
    assert f"{whole} of the 2 other starts found all 3 components again" in " ".join(reported.parsed.texts)
    said = [text for text in reported.parsed.texts if text.startswith("other starts with the same: ")]
    assert sorted(said) == sorted(f"other starts with the same: {n}" for n in (again >= 0.9).sum(axis=0))


def test_runs_that_agree_say_so_whatever_their_order_and_scale() -> None:
    rng = np.random.default_rng(0)
    W, H = rng.random((6, 3)), rng.random((3, 5))
    found = agreement.cosines((W, H), (2.0 * W[:, ::-1], 7.0 * H[::-1]), xp=np)
    np.testing.assert_allclose(np.diag(found[:, ::-1]), 1.0)
    assert agreement.found_again(nmf_xp.nmf(rng.random((6, 5)), 2, n_restarts=3, random_state=0)) is None


@pytest.mark.parametrize(
    "cosines", [np.full((3, 7), 0.5), np.full((3, 2), np.nan), np.ones((3, 2, 1)), np.ones((1, 2), dtype=int)]
)
def test_odd_numbers_of_restarts_are_left_out_or_count_as_not_found(cosines: Any) -> None:
    ends = np.asarray([1.0, np.inf, 3.0])
    arrays = {"W": np.ones((5, 2)), "H": np.ones((2, 9)), "restart_objectives": ends, "restart_cosines": cosines}
    page = report.page(report.stored_from(arrays, {"version": "0"}), title="t")
    assert "Where 2 random starts ended" in page
    assert "found all" not in page or "0 of the 3 other starts found all 2 components again" in page


@pytest.mark.parametrize("size", [0.0, 5e-324, 1.7e308])
def test_factors_at_the_end_of_their_range_have_shares(size: float) -> None:
    W, H = np.full((5, 2), size), np.full((2, 40), size)
    parts = parts_of(report.stored_from({"W": W, "H": H}, {"version": "0"}))
    for part in parts:
        assert part.share == pytest.approx(0.5 if size else 0.0)
        np.testing.assert_allclose(part.columns, 1 / 40 if size else 0.0)
        np.testing.assert_allclose(part.rows, 0.5 if size else 0.0)


def test_the_page_of_a_large_matrix_is_small() -> None:
    rng = np.random.default_rng(0)
    W, H = rng.gamma(0.3, 1.0, (50_000, 40)), rng.gamma(0.3, 1.0, (40, 5_000))
    stored = report.stored_from({"W": W, "H": H}, {"version": "0"})
    assert len(report.page(stored, title="large")) < 1_000_000


def test_batches_are_shown_with_the_columns_of_their_largest_effects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    factor = np.where(np.arange(90)[:, None] % 3 == 0, [1, 1, 8, 1, 1, 0, 1, 0.125], 1.0)
    V = rng.poisson(rng.gamma(1, 20, (90, 2)) @ rng.gamma(1, 1, (2, 8)) * factor)
    quoted = ['"' + name.replace('"', '""') + '"' for name in HOSTILE]
    Path("V.csv").write_text("\n".join([",".join(quoted), *(",".join(map(str, row)) for row in V.tolist())]))
    labels = [quoted[0] if i % 3 == 0 else quoted[1] for i in range(90)]
    Path("labels.csv").write_text("\n".join(labels), encoding="utf-8")
    words = ["--beta-loss", "1", "--random-state", "0", "--batch", "labels.csv"]
    assert main(["fit", "V.csv", "-k", "2", *words]) == 0
    assert main(["report", "V.factors.npz", "--top", "3"]) == 0
    page = Path("V.report.html").read_text(encoding="utf-8")
    parsed = Parsed(page)
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings[2:6] == ["Columns", "Batches", "Components in the batches", "The fit"]
    result = nmf_xp.load("V.factors.npz")
    assert result.batch_effects is not None
    (head,) = [i for i, row in enumerate(parsed.rows) if row[:1] == ["batch"] and len(row) > 2]
    assert parsed.rows[head] == ["batch", "share of the rows", "median of |log2|", "columns without counts"]
    for row, (label, effects) in zip(parsed.rows[head + 1 :], result.batch_effects.items(), strict=False):
        share = "33.3%" if label == HOSTILE[0] else "66.7%"
        middle = np.median(np.abs(np.log2(effects[effects > 0])))
        assert row == [label, share, f"{middle:.2f}", str(int((effects == 0).sum()))]
    changed = result.batch_effects[HOSTILE[0]]
    assert changed[5] == 0
    shown = [row for row in parsed.rows[head + 3 :] if len(row) == 3 and row[2][:1] in "+-"]
    assert len(shown) == 6
    for label, rows in zip(result.batch_labels or (), (shown[:3], shown[3:]), strict=True):
        with np.errstate(divide="ignore"):
            steps = np.log2(result.batch_effects[label])
        steps[np.isinf(steps)] = 0
        assert [row[0] for row in rows] == [HOSTILE[j] for j in np.argsort(-np.abs(steps))[:3]]
        assert [row[2] for row in rows] == [f"{steps[j]:+.2f}" for j in np.argsort(-np.abs(steps))[:3]]
    assert [tag for tag, _ in parsed.tags].count("h1") == 1  # none of a name
    assert page.count("<script") == 1
    assert "W @ H times the effects of batches, the model" in page
    assert "explained" not in parsed.table()
    result.report("again.html")  # which does not know the rows of the batches
    assert ["batch", "median of |log2|", "columns without counts"] in Parsed(Path("again.html").read_text()).rows


def test_a_page_without_batches_has_no_such_section(reported: Run) -> None:
    assert "<h2>Batches</h2>" not in reported.page


@pytest.mark.parametrize("effects", [np.full((2, 5), np.nan), -np.ones((2, 5)), np.full((2, 5), np.inf)])
def test_effects_that_cannot_be_are_damage(effects: Any) -> None:
    arrays = {
        "W": np.ones((4, 2)),
        "H": np.ones((2, 5)),
        "batch_effects": effects,
        "batch_labels": np.array(["a", "b"]),
    }
    with pytest.raises(nmf_xp.FileError, match="effects of batches are negative or not finite"):
        report.stored_from(arrays, {"version": "0"})


def test_many_batches_and_effects_at_the_end_of_their_range_are_a_page() -> None:
    effects = np.ones((300, 5))
    effects[0] = [0, 1e-308, 1e308, 5e-324, 1]
    arrays: dict[str, Any] = {"W": np.ones((4, 2)), "H": np.ones((2, 5)), "batch_effects": effects}
    arrays |= {"batch_labels": np.array([f"b{i}" for i in range(300)]), "batch_shares": np.full(300, 7.0)}
    page = report.page(report.stored_from(arrays, {"version": "0"}), title="many")
    assert "The first 24 of 300 batches are shown" in page
    assert "share of the rows" not in page
    assert "nan" not in page
    Parsed(page)
    arrays |= {"batch_effects": np.ones((0, 5)), "batch_labels": np.array([], dtype=str)}
    assert "Batches" not in report.page(report.stored_from(arrays, {"version": "0"}), title="none")


def test_components_as_images(
    reported: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(reported.folder)
    assert main(["report", "V.factors.npz", "--out", "images.html", "--shape", "2x4"]) == 0
    assert capsys.readouterr().out == "written       images.html\n"
    parsed = Parsed(Path("images.html").read_text(encoding="utf-8"))
    drawn = [a for tag, a in parsed.tags if a.get("class") == "part shades"]
    assert len(drawn) == 3
    pixels = [base64.b64decode(a["src"].partition(",")[2])[16:24] for a in drawn]
    assert {(int.from_bytes(x[:4]), int.from_bytes(x[4:])) for x in pixels} == {(4, 2)}  # width and height


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_a_file_of_an_earlier_version_shows_what_it_has(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reported: Run
) -> None:
    if suffix == "safetensors":
        pytest.importorskip("safetensors", reason="safetensors is not installed")
    monkeypatch.chdir(tmp_path)
    assert main(["fit", str(reported.folder / "V.csv"), "-k", "2", "--tol", "0", "--out", f"new.{suffix}"]) == 0
    from nmf_xp.files import read_archive, write_factors

    arrays, texts = read_archive(Path(f"new.{suffix}"))
    old = ("W", "H", "history", "divergence", "n_iter", "row_names", "column_names")
    kept = ("status", "beta", "solver", "random_state", "ran_on", "input", "version", "row_names", "column_names")
    arrays = {name: array for name, array in arrays.items() if name in old}
    write_factors(Path(f"old.{suffix}"), arrays, {name: text for name, text in texts.items() if name in kept})
    assert main(["report", f"old.{suffix}"]) == 0
    parsed = Parsed(Path("old.report.html").read_text(encoding="utf-8"))
    assert HOSTILE[0] in parsed.texts
    assert "max iter" in parsed.texts  # how it ended
    assert any(text.startswith("Nothing was checked") for text in parsed.texts)
    assert "explained" not in parsed.texts
    assert not [a for tag, a in parsed.tags if tag == "img" and "V, the data" in a["alt"]]
    assert main(["report", f"new.{suffix}"]) == 0
    assert "means of its columns" in Path("new.report.html").read_text(encoding="utf-8")
    everything, _ = read_archive(Path(f"new.{suffix}"))
    write_factors(Path(f"mean.{suffix}"), {name: x for name, x in everything.items() if name != "explained"}, texts)
    assert main(["report", f"mean.{suffix}"]) == 0  # of the version before
    assert "its own mean" in Path("mean.report.html").read_text(encoding="utf-8")


def test_factors_are_written_though_there_is_no_memory_for_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def overview(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fit, "overview", overview)
    np.save("V.npy", np.ones((4, 3)))
    assert main(["fit", "V.npy", "-k", "1"]) == 0
    assert capsys.readouterr().err == "nmf-xp: warning: V is left out of the output: out of memory\n"
    assert main(["report", "V.factors.npz"]) == 0
    assert "explained" not in Parsed(Path("V.report.html").read_text(encoding="utf-8")).table()


def test_a_file_that_is_no_result_is_one_line_and_nothing_is_written(
    reported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with np.load(reported.folder / "V.factors.npz") as file:
        good = dict(file)

    def changed(name: str, **new: Any) -> None:
        np.savez(name, **{key: value for key, value in {**good, **new}.items() if value is not None})

    changed("other.npz", version=None, W=None)
    changed("shapes.npz", H=good["H"][1:])
    changed("negative.npz", W=-good["W"])
    changed("integers.npz", W=good["W"].astype(int))
    changed("names.npz", column_names=good["column_names"][1:])
    changed("text.npz", row_names="x")
    changed("deep.npz", column_names="[" * 5000)
    changed(
        "far.npz",
        options="[" * 5000,
        environment='{"a": [1], "b": ' + "9" * 5000 + "}",
        check_every=-1e308,
        n_iter=1e308,
    )
    changed("odd.npz", options="{", environment="[]", beta="two", status="WELL", history=good["W"], n_iter=good["W"])
    whole = (reported.folder / "V.factors.npz").read_bytes()
    Path("cut.npz").write_bytes(whole[: len(whole) // 2])
    broken = bytearray(whole)
    broken[200] ^= 1
    Path("broken.npz").write_bytes(broken)
    np.save("matrix.npy", good["W"])
    Path("matrix.npz").write_bytes(Path("matrix.npy").read_bytes())
    for name, message in {
        "missing.npz": "no such file",
        "matrix.npy": "the suffix '.npy' is none of .npz, .safetensors",
        "matrix.npz": "cannot be read: ",
        "cut.npz": "cannot be read: ",
        "broken.npz": "cannot be read: ",
        "other.npz": "is no output of `nmf-xp fit`: it holds no W and no version",
        "shapes.npz": "is damaged: W and H have the shapes (20, 3) and (2, 8)",
        "negative.npz": "is damaged: W has entries that are negative or not finite",
        "integers.npz": "is damaged: W has the dtype int64",
        "names.npz": "is damaged: it has 7 column names for 8",
        "text.npz": "is damaged: its row names are no list of names",
        "deep.npz": "is damaged: its column names are no list of names",
    }.items():
        assert main(["report", name, "--out", "out.html"]) == 2
        captured = capsys.readouterr()
        assert captured.err.startswith(f"nmf-xp: error: {name}: {message}"), name
        assert captured.err.count("\n") == 1
        assert captured.out == ""
        assert not Path("out.html").exists()
    # What is beside the factors is left out where it is odd.
    assert main(["report", "far.npz", "--out", "far.html"]) == 0
    assert main(["report", "odd.npz", "--out", "out.html"]) == 0
    assert Parsed(Path("out.html").read_text(encoding="utf-8")).table()["loss"] == "two"


def test_a_page_that_exists_is_kept_unless_forced(
    reported: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    factors = str(reported.folder / "V.factors.npz")
    Path("V.report.html").write_text("precious", encoding="utf-8")
    assert main(["report", factors]) == 2
    assert capsys.readouterr().err == "nmf-xp: error: V.report.html: exists already; say --force to replace it\n"
    assert main(["report", factors, "--force", "--shape", "3x3"]) == 2
    assert "the shape 3x3 has 9 pixels, and a component has 8 entries" in capsys.readouterr().err
    assert Path("V.report.html").read_text(encoding="utf-8") == "precious"
    assert main(["report", factors, "--force"]) == 0
    assert Path("V.report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert [path.name for path in tmp_path.iterdir()] == ["V.report.html"]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium to open the page in")
@pytest.mark.parametrize("width", [1280, 360])
def test_a_browser_shows_it_without_complaint_and_without_running_anything(
    reported: Run, width: int, tmp_path: Path
) -> None:
    """A frame of that width, in a page that measures what is inside of it."""
    probe = (
        "<!DOCTYPE html><title>waiting</title><body style='margin:0'>"
        f"<iframe style='width:{width}px;height:900px;border:0' src='{(reported.folder / 'V.report.html').as_uri()}'>"
        "</iframe><script>onload = () => { const page = frames[0].document, root = page.documentElement;"
        "const drawn = [...page.querySelectorAll('svg, img')].filter(x => { const b = x.getBoundingClientRect();"
        " return b.width > 1 && b.height > 1 && (x.tagName != 'IMG' || x.naturalWidth > 0); });"
        "const wide = [...page.querySelectorAll('body *')]"
        " .filter(x => x.getBoundingClientRect().right > root.clientWidth + 1);"
        "const table = page.querySelector('table.sortable'), column = i => [...table.tBodies[0].rows]"
        " .map(row => row.cells[i].textContent); const before = column(0);"
        "table.querySelectorAll('th button')[2].click(); const after = column(0), shares = column(2);"
        "document.body.innerHTML = ''; const out = document.createElement('pre'); out.id = 'found';"
        "out.textContent = JSON.stringify({before, after, shares,"
        " title: page.title, scroll: root.scrollWidth, client: root.clientWidth,"
        " wide: wide.map(x => x.outerHTML.slice(0, 80)), drawn: drawn.length,"
        " all: page.querySelectorAll('svg, img').length, scripts: page.scripts.length,"
        " shown: page.querySelectorAll('h2').length});"
        "document.body.append(out); }</script>"
    )
    (tmp_path / "probe.html").write_text(probe, encoding="utf-8")
    assert CHROMIUM is not None
    flags = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    words = [
        CHROMIUM, *flags.split(), "--disable-component-update", "--disable-sync", "--allow-file-access-from-files",
        "--enable-logging=stderr", "--v=0", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,1000",
        "--virtual-time-budget=5000", "--dump-dom", (tmp_path / "probe.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    (found,) = re.findall(r'<pre id="found">(.+?)</pre>', done.stdout)
    seen = json.loads(found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert "CONSOLE" not in done.stderr, done.stderr
    assert seen["title"] == "<i>My & run</i>"
    assert seen["scripts"] == 1
    assert seen["shown"] == 7
    assert seen["before"] != seen["after"]
    assert sorted(seen["before"]) == sorted(seen["after"])
    assert [float(x) for x in seen["shares"]] == sorted(map(float, seen["shares"]), reverse=True)
    assert seen["drawn"] == seen["all"] > 20
    assert seen["wide"] == []
    assert seen["scroll"] == seen["client"] <= width


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "y", [[1.7e308, 1.6e308], [1.79e308, 1.0], [1.79e308, 0.0], [1.79e308, 5e-324], [5e-324, 0.0], [1e-320, 1e-321]]
)
def test_charts_of_numbers_at_the_end_of_their_range_have_finite_places(y: list[float], log: bool) -> None:
    drawn = charts.line_chart([0.0, 1.0], y, x_label="x", y_label="y", log=log)
    places = re.findall(r'(?:y1|cy)="(.*?)"', drawn)
    assert len(places) > 2
    assert all(0 <= float(place) <= charts.HEIGHT for place in places)
    assert 0 <= min(float(x) for x in re.findall(r'cx="(.*?)"', charts.dot_strip(y, label="")))


@pytest.mark.parametrize(("largest", "loss"), [(1.5e308, "kullback-leibler"), (2e153, "frobenius"), (1e-300, "1")])
def test_the_report_of_data_at_the_end_of_their_range_holds_finite_numbers(
    largest: float, loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    V = rng.gamma(1, 1, (12, 3)) @ rng.gamma(1, 1, (3, 9)) + 0.1 * rng.random((12, 9))
    np.save("V.npy", V / V.max() * largest)
    assert main(["fit", "V.npy", "-k", "2", "--beta-loss", loss, "--check-every", "1", "--random-state", "0"]) == 0
    assert main(["report", "V.factors.npz"]) == 0
    page = Path("V.report.html").read_text(encoding="utf-8")
    assert not re.search(r"\b(nan|inf)\b", re.sub("<style>.*?</style>", "", page, flags=re.DOTALL))
    with np.load("V.factors.npz") as stored:
        assert np.all(np.isfinite(stored["data_cells"]))
        assert stored["data_cells"].max() > 0


def test_components_in_batches_are_shown_and_marked_where_nothing_tells_them_apart() -> None:
    rng = np.random.default_rng(0)
    W, H, B = rng.random((6, 2)), rng.random((2, 5)), rng.lognormal(size=(2, 5))
    labels = np.array(["a", "<b>"])
    codes = np.array([0, 0, 0, 1, 1, 1])
    W[:3, 1] = 0  # the second one is in <b> only
    loadings = np.stack([W[codes == i].sum(axis=0) for i in range(2)])
    arrays: dict[str, Any] = {"W": W, "H": H, "batch_effects": B, "batch_labels": labels, "batch_loadings": loadings}
    rows = Parsed(report.page(report.stored_from(arrays, {"version": "1"}), title="t")).rows
    (head,) = [i for i, row in enumerate(rows) if "changed by the effects" in row]
    shown = {row[0]: row[1:] for row in rows[head + 1 : head + 3]}
    model = [np.stack([W[i, k] * H[k] for i in range(6)]) for k in range(2)]
    for k, line in enumerate((shown["H[0]"], shown["H[1]"])):
        with_effects = model[k] * B[codes]
        held = [with_effects[codes == i].sum() / with_effects.sum() for i in range(2)]
        changed = np.abs(with_effects - model[k]).sum() / np.maximum(with_effects, model[k]).sum()
        where = f"{'only ' if k else ''}{labels[int(np.argmax(held))]}"
        assert line == [f"{changed:.1%}", where, f"{max(held):.1%}"]
    for wrong in (loadings[:1], loadings[:, :1], -loadings, loadings * np.nan):
        with pytest.raises(nmf_xp.FileError, match="the loadings of batches"):
            report.stored_from({**arrays, "batch_loadings": wrong}, {"version": "1"})
    without = report.page(
        report.stored_from({k: x for k, x in arrays.items() if k != "batch_loadings"}, {"version": "1"}), title="t"
    )
    assert "Components in the batches" not in without


def test_a_file_of_a_fit_in_batches_knows_its_components(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    V, labels = rng.poisson(5.0, (30, 8)).astype(float), np.arange(30) % 3
    result = nmf_xp.nmf(V, 2, beta_loss=1.0, batch=labels, random_state=0)
    result.save(tmp_path / "fit.npz")
    result.report(tmp_path / "a.html")
    nmf_xp.load(tmp_path / "fit.npz").report(tmp_path / "b.html")
    pages = [Parsed((tmp_path / f"{name}.html").read_text()).rows for name in "ab"]
    (head,) = [i for i, row in enumerate(pages[0]) if "changed by the effects" in row]
    assert pages[0][head : head + 3] in (pages[1][i : i + 3] for i in range(len(pages[1])))
