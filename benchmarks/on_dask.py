"""A run on a dask cluster of this machine: overhead of a block, and bytes that move in an iteration.

    python benchmarks/on_dask.py

Blocks are tiny for the overhead, so that there is nothing else. What moves is counted by the workers, and by what the
client sends and takes.
"""

from __future__ import annotations

import time
from typing import Any

import dask.array as da
from distributed import Client, LocalCluster

from nmf_xp import nmf

ITERATIONS = 20


def seconds(V: Any, rank: int, iterations: int) -> float:
    """Time of a run."""
    begin = time.perf_counter()
    nmf(V, rank, beta_loss="kullback-leibler", solver="mu", random_state=0, max_iter=iterations, tol=0)
    return time.perf_counter() - begin


def overhead(shape: tuple[int, int], chunks: tuple[int, int], rank: int = 8) -> float:
    """Milliseconds a block and iteration, V itself aside."""
    V = da.random.default_rng(0).gamma(2.0, 1.0, size=shape, chunks=chunks).persist()
    count = V.numblocks[0] * V.numblocks[1]
    seconds(V, rank, 2)
    times = [(seconds(V, rank, 2 + ITERATIONS) - seconds(V, rank, 2)) / ITERATIONS for _ in range(3)]
    return 1e3 * sorted(times)[1] / count


def received(client: Client) -> float:
    """Bytes that the workers have fetched from each other."""
    logs = client.run(lambda dask_worker: sum(x["total"] for x in dask_worker.transfer_incoming_log))
    return float(sum(logs.values()))


def sent(client: Client) -> float:
    """Bytes that the workers have handed out, to each other and to the client."""
    logs = client.run(lambda dask_worker: sum(x["total"] for x in dask_worker.transfer_outgoing_log))
    return float(sum(logs.values()))


def main() -> None:
    """Print the table."""
    for grid in ((16, 1), (64, 1), (4, 4), (8, 8)):
        shape, chunks, name = (64 * grid[0], 64 * grid[1]), (64, 64), f"{grid[0]} x {grid[1]}"
        with dask_config("threads"):
            here = overhead(shape, chunks)
        with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster):
            print(f"{name:>8} blocks: {here:5.2f} ms a block on threads, {overhead(shape, chunks):5.2f} on 3 workers")
    bytes_moved()


def bytes_moved(m: int = 24_000, n: int = 1000, rank: int = 20) -> None:
    """Print what an iteration moves."""
    with LocalCluster(n_workers=3, threads_per_worker=1, dashboard_address=":0") as cluster, Client(cluster) as client:
        V = da.random.default_rng(0).gamma(2.0, 1.0, size=(m, n), chunks=(2000, n)).persist()
        runs = []
        for iterations in (20, 60):
            before = received(client), sent(client)
            seconds(V, rank, iterations)
            runs.append((received(client) - before[0], sent(client) - before[1]))
        factors = (m + n) * rank * 8
        between, out = ((b - a) / 40 for a, b in zip(*runs, strict=True))
        to_workers = 3 * n * rank * 8 + m * rank * 8 / 10
        print(
            f"V {m * n * 8 / 1e6:.0f} MB, factors {factors / 1e6:.2f} MB; an iteration: "
            f"{between / 1e6:.3f} MB between workers, {(out - between) / 1e6:.3f} MB to the client, "
            f"{to_workers / 1e6:.3f} MB from it: {(out + to_workers) / factors:.2f} times the factors"
        )


def dask_config(scheduler: str) -> Any:
    """dask's scheduler."""
    import dask

    return dask.config.set(scheduler=scheduler)


if __name__ == "__main__":
    main()
