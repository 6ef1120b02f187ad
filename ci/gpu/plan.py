"""What there is to find: stages and their limits, the processes of each, and the cases, which the page lists too.

No array library is imported here: the process that ends all others must not hang in one.
"""

from __future__ import annotations

from typing import NamedTuple


class Stage(NamedTuple):
    """The most seconds that it may take, and whether its processes run side by side, since they measure no time."""

    limit: float
    together: bool


STAGES = {
    "probe": Stage(60, together=True),
    "kit": Stage(130, together=True),
    "exact": Stage(70, together=True),
    "time": Stage(180, together=False),
    "tests": Stage(270, together=False),
    "variants": Stage(120, together=False),
    "profile": Stage(50, together=False),
}
HERE = Stage(60, together=True)  # what is here is asked before all else, by the probe where it is wanted
LIBRARIES = {"cupy": ("cupy", "cupy"), "torch": ("torch:cuda", "torch"), "jax": ("jax:gpu", "jax")}  # on GPU, on CPU
PARTS = {("kit", "jax:gpu"): 6, ("kit", "cupy"): 3, ("exact", "jax:gpu"): 4}  # those that compile most are divided
LOSSES = {1.0: "KL", 2.0: "Frobenius", 0.5: "beta 0.5"}
COPY, PLAIN, TORCHNMF = "copy", "plain loop", "torchnmf"


class Task(NamedTuple):
    """One process of a stage, or one of several that divide the stage's cases among them."""

    stage: str
    backend: str = ""
    part: int = 0
    parts: int = 1
    kernels: bool = True

    @property
    def column(self) -> str:
        """What it measures, as the page heads it."""
        return self.backend if self.kernels else f"{self.backend}, no kernels"

    @property
    def name(self) -> str:
        """How the log and the page call it."""
        share = f" {self.part + 1}/{self.parts}" if self.parts > 1 else ""
        return f"{self.stage} {self.column}{share}".rstrip()


def backends(libraries: list[str], *, small: bool) -> list[str]:
    """The backends of these libraries: on the GPU, or for a rehearsal on the CPU."""
    return [LIBRARIES[library][small] for library in libraries]


def tasks(stage: str, present: list[str], *, small: bool) -> list[Task]:
    """The processes of a stage."""
    if stage in ("probe", "here"):
        return [Task("machine"), *(Task(stage, backend) for backend in present)]
    found = []
    for backend in present:
        parts = 1 if small else PARTS.get((stage, backend), 1)
        found += [Task(stage, backend, part, parts) for part in range(parts)]
    if stage == "time":
        found += [Task(stage, backend, kernels=False) for backend in present if backend == "jax:gpu"]
    return found


class Exact(NamedTuple):
    """One iteration of `mu` for the Kullback-Leibler divergence, which is compared with a plain loop in float64."""

    kind: str  # "dense" or "sparse"
    dtype: str
    shape: tuple[int, int]
    rank: int

    @property
    def what(self) -> str:
        """The name of its line."""
        return f"{self.kind} {self.shape[0]} x {self.shape[1]}, rank {self.rank}, {self.dtype}"


def exact_cases(*, small: bool) -> list[Exact]:
    """Odd sizes at all ranks for which kernels differ, and a large one."""
    odd, large = ((67, 45), (300, 257)) if small else ((4099, 6001), (16_384, 8192))
    ranks = (1, 20) if small else (1, 16, 20, 64, 128)
    cases = [(kind, shape, rank) for kind in ("dense", "sparse") for shape, rank in ((odd, rank) for rank in ranks)]
    cases += [("dense", large, 64)]
    return [Exact(kind, dtype, shape, rank) for kind, shape, rank in cases for dtype in ("float32", "float64")]


class Timed(NamedTuple):
    """Some iterations of one side, which is a solver, a loop written by hand, or torchnmf."""

    side: str
    beta: float
    rank: int
    data: str  # "large", "small" or "sparse"
    iterations: int

    @property
    def what(self) -> str:
        """The name of its line."""
        return self.side if self.side == COPY else f"{self.side}, {LOSSES[self.beta]}, rank {self.rank}, {self.data}"


def sizes(*, small: bool) -> dict[str, tuple[int, int]]:
    """The shapes of the data that are timed."""
    if small:
        return {"large": (96, 80), "small": (40, 30), "sparse": (60, 50)}
    return {"large": (16_384, 16_384), "small": (1000, 500), "sparse": (100_000, 50_000)}


def entries(*, small: bool) -> int:
    """How many entries of the sparse data are drawn."""
    return 600 if small else 10_000_000


def timed_cases(column: str, *, small: bool) -> list[Timed]:
    """What is timed on a backend; without kernels only what has kernels for it. The dearest come last."""
    ranks = (4,) if small else (16, 64, 128)
    rank = 4 if small else 20
    fused = [Timed("mu", 1.0, r, "large", 10) for r in ranks]
    sparse = [Timed("mu", 1.0, r, "sparse", 2) for r in dict.fromkeys((rank, ranks[-1] // 2 or 1))]
    copy = [Timed(COPY, 0.0, 0, "large", 1)]
    if column.endswith("no kernels"):
        return [*copy, *fused, *sparse]
    others = ((1.0, ("newton", "mm", "cd", "online")), (2.0, ("mu", "cd", "cd-plain", "mm")), (0.5, ("mu", "mm")))
    plain = [Timed(PLAIN, 1.0, r, "large", 10) for r in ranks]
    plain += [Timed(PLAIN, beta, rank, "large", 10) for beta, _ in others]
    torchnmf = [Timed(TORCHNMF, beta, rank, "large", 6) for beta in (1.0, 2.0)]
    solvers = [Timed(side, beta, rank, "large", 3) for beta, sides in others for side in sides]
    short = [Timed(PLAIN, beta, rank, "small", 20) for beta in (1.0, 2.0)]
    short += [Timed(side, beta, rank, "small", 20) for side, beta in (("mu", 1.0), ("newton", 1.0), ("cd", 2.0))]
    cases = [*copy, *fused, *plain, *(torchnmf if column.startswith("torch") else []), *sparse, *short, *solvers]
    return list(dict.fromkeys(cases))


def profiled_cases(*, small: bool) -> list[tuple[str, float]]:
    """The solvers and losses whose launches and waits are counted; torch's profiler takes its time on a CPU."""
    return [("mu", 1.0)] if small else [("mu", 1.0), ("newton", 1.0), ("cd", 2.0)]


def profiled_name(case: tuple[str, float]) -> str:
    """The name of the line of one of them."""
    return f"{case[0]}, {LOSSES[case[1]]}"
