#!/usr/bin/env bash
# The wheel of a release for this kind of processor: kernels for all of its levels, one file for CPython 3.11 and later.
#
# Zig (from the package registry) compiles and links it for Linux with glibc 2.17 and later, whatever this machine has.
# It is then tried in empty environments, on each Python that is there. The sdist is made as well. For macOS, and for
# arm64, run it there: what compiles the kernels makes code for its own kind of processor only.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
OUT=${1:-dist}

rm -rf "$OUT" build/zig
"$PYTHON" -m venv build/zig
build/zig/bin/pip install -q build ziglang
python=$PWD/build/zig/bin/python
export NMF_XP_COMPILE
case "$(uname -s) $(uname -m)" in
    "Linux x86_64")
        NMF_XP_COMPILE="x86-64-v2 x86-64-v3 x86-64-v4"
        export CC="$python -m ziglang cc -target x86_64-linux-gnu.2.17" NMF_XP_PLATFORM=manylinux_2_17_x86_64
        ;;
    "Linux aarch64")
        NMF_XP_COMPILE=armv8-a
        export CC="$python -m ziglang cc -target aarch64-linux-gnu.2.17" NMF_XP_PLATFORM=manylinux_2_17_aarch64
        ;;
    "Darwin arm64") NMF_XP_COMPILE=armv8-a ;;
    *) echo "no release is made for $(uname -sm): pip install . makes a wheel for this machine" >&2 && exit 2 ;;
esac
"$python" -m build -q --outdir "$OUT"
"$PYTHON" ci/check_packages.py "$OUT"
