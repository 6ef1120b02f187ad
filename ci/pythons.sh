#!/usr/bin/env bash
# The tests on other Pythons and with other releases than those of the whole suite.
#
# 3.11, 3.12 and 3.13: these Pythons with the newest releases that each allows; the backends' matrix and the kernels.
# The Python of .venv, which has the whole suite, is not tried again, and one that is not installed is left out.
# least: Python 3.11 with the least releases that pyproject.toml names, and the newest of what it does not name, as pip
# chooses them; also the tests of what meets another library closely.
# `bash ci/pythons.sh NAME ...` tries only these.
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH="torch==2.13.0"  # the release of which a build for CPUs can be had, and for Python 3.11 only
MATRIX=(tests/test_matrix.py tests/testing/test_conformance.py tests/test_updates.py tests/arrays/test_kernels.py
    tests/arrays/test_gpu_kernels.py tests/arrays/test_jax.py tests/data/test_sparse.py tests/test_import.py tests/project/test_package.py)
# What a release lacks shows in either dtype: of the tests that run in both, those in float32, where a library that
# falls back to float64 is found out. matplotlib 3.9 uses names that pyparsing 3.3 deprecates; Python hides the warning.
LEAST=(-k "not float64 or in_float64 or without_float64"
    -W "ignore::pyparsing.warnings.PyparsingDeprecationWarning" "${MATRIX[@]}"
    tests/run/test_checkpoint*.py tests/cli/test_cli.py tests/data/test_{dask,cluster,versions}.py tests/files/test_files.py tests/data/test_out_of_core.py
    tests/plot/test_plot.py tests/result/test_report.py tests/sklearn/test_sklearn*.py tests/data/test_stores.py tests/arrays/test_threads.py
    tests/arrays/test_torch.py)
FAST="--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"  # XLA compiles more than it runs

say() { printf '=== %s (%ss)\n' "$1" "$SECONDS"; }

# The path of a Python that is installed and runs. A shim of pyenv is there without it, and must be told the version.
interpreter() {
    local ask=(-c "import ensurepip, sys; print(sys.executable)")
    "python$1" "${ask[@]}" 2>/dev/null || PYENV_VERSION=$1 "python$1" "${ask[@]}" 2>/dev/null
}

# try NAME PYTHON ARGUMENTS_OF_PYTEST... ; $EXTRA is a package more.
try() {
    local name=$1 python=$2 environment=".venv-$1" constraints=()
    shift 2
    rm -rf "$environment"
    "$python" -m venv "$environment"
    if [ -n "${EXTRA:-}" ]; then "$environment/bin/pip" install -q "$EXTRA"; fi
    if [ "$name" = least ]; then
        "$python" ci/least_versions.py test >"$environment/least.txt"
        constraints=(-c "$environment/least.txt")
    fi
    "$environment/bin/pip" install -q "${constraints[@]}" ".[test]" pytest-xdist
    "$environment/bin/pip" install -q --no-deps -e .
    say "$name: installed"
    # Elsewhere than beside the source, where kernels by this numba would take the place of those by the whole suite's.
    NUMBA_CACHE_DIR="$PWD/$environment/numba" "$environment/bin/python" -m pytest -q -r fEX -n auto "$@"
    rm -rf "$environment"
    say "$name: tested"
}

whole=$(.venv/bin/python -c "import sys; print('%d.%d' % sys.version_info[:2])")
if [ $# = 0 ]; then set -- 3.11 3.12 3.13 least; fi
for name in "$@"; do
    version=${name/least/3.11}
    if [ "$name" = "$whole" ]; then
        continue
    elif ! python=$(interpreter "$version"); then
        say "$name: left out, Python $version is not installed"
    elif [ "$name" = least ]; then
        EXTRA=$TORCH XLA_FLAGS=$FAST try least "$python" "${LEAST[@]}"
    elif [ "$name" = 3.11 ]; then
        EXTRA=$TORCH try 3.11 "$python" "${MATRIX[@]}"
    else
        # On other Pythons than 3.11, no build of torch for CPUs is on the package index.
        BACKENDS_LEFT_OUT=torch try "$name" "$python" "${MATRIX[@]}"
    fi
done
