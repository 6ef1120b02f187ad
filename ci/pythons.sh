#!/usr/bin/env bash
# The tests on other Pythons than that of the whole suite.
#
# Python 3.11, 3.12 and 3.13 with the newest releases that each allows: the backends' matrix and the kernels. The
# Python of .venv, which has the whole suite, is not tried again, and one that is not installed is left out.
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH="torch==2.13.0"  # the release of which a build for CPUs can be had, and for Python 3.11 only
MATRIX=(tests/test_matrix.py tests/test_conformance.py tests/test_updates.py tests/test_kernels.py
    tests/test_gpu_kernels.py tests/test_jax.py tests/test_sparse.py tests/test_import.py tests/test_package.py)

say() { printf '=== %s (%ss)\n' "$1" "$SECONDS"; }

# The path of a Python that is installed and runs. A shim of pyenv is there without it, and must be told the version.
interpreter() {
    local ask=(-c "import ensurepip, sys; print(sys.executable)")
    "python$1" "${ask[@]}" 2>/dev/null || PYENV_VERSION=$1 "python$1" "${ask[@]}" 2>/dev/null
}

# try VERSION PYTHON ; $EXTRA is a package more.
try() {
    local name=$1 python=$2 environment=".venv-$1"
    rm -rf "$environment"
    "$python" -m venv "$environment"
    if [ -n "${EXTRA:-}" ]; then "$environment/bin/pip" install -q "$EXTRA"; fi
    "$environment/bin/pip" install -q ".[test]" pytest-xdist
    "$environment/bin/pip" install -q --no-deps -e .
    say "$name: installed"
    "$environment/bin/python" -m pytest -q -r fEX -n auto "${MATRIX[@]}"
    rm -rf "$environment"
    say "$name: tested"
}

whole=$(.venv/bin/python -c "import sys; print('%d.%d' % sys.version_info[:2])")
for version in 3.11 3.12 3.13; do
    if [ "$version" = "$whole" ]; then
        continue
    elif ! python=$(interpreter "$version"); then
        say "left out: Python $version is not installed"
        continue
    fi
    # On other Pythons than 3.11, no build of torch for CPUs is on the package index.
    if [ "$version" = 3.11 ]; then
        EXTRA=$TORCH try "$version" "$python"
    else
        BACKENDS_LEFT_OUT=torch try "$version" "$python"
    fi
done
