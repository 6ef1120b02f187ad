#!/usr/bin/env bash
# The tests that compute with NumPy, under kernels of OpenBLAS for other processors than this one: no expectation may
# depend on which. What this processor or NumPy's build of OpenBLAS does not have is left out. (That build takes
# Haswell's kernels for Zen.)
set -euo pipefail
cd "$(dirname "$0")/.."

NUMERICS=(tests/plot/test_plot.py tests/solvers/test_solvers.py tests/problem/test_init.py tests/test_factorization.py
    tests/run/test_near_exact_fits.py tests/data/test_sparse.py tests/test_updates.py tests/test_divergences.py
    tests/testing/test_conformance.py tests/result/test_result.py tests/result/test_report.py)

kernels() {
    .venv/bin/python -c "
import numpy, threadpoolctl
A = numpy.ones((200, 200))
A @ A
print(*{library.get('architecture') for library in threadpoolctl.threadpool_info()})" 2>/dev/null
}

own=$(kernels)
for core in Haswell SkylakeX Sandybridge; do
    if [ "$core" = "$own" ]; then
        echo "=== OpenBLAS for $core: the whole suite runs under it"
    elif [ "$(OPENBLAS_CORETYPE=$core kernels)" = "$core" ]; then
        echo "=== OpenBLAS for $core (${SECONDS}s)"
        OPENBLAS_CORETYPE=$core .venv/bin/python -m pytest -q -r fE -n auto -k "not (jax or torch or strict or cupy)" "${NUMERICS[@]}"
    else
        echo "=== OpenBLAS for $core: left out, not for this processor or not in NumPy's build"
    fi
done
echo "=== OpenBLAS: done (${SECONDS}s)"
