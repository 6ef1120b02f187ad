#!/usr/bin/env bash
# The conformance kit, the test matrix and a benchmark on a machine with a GPU; writes docs/gpu-report.md.
#
# Uses the current `python` where it can import nmf_xp's needs. Otherwise installs into a virtual environment, from the
# package index, or without one from the wheels in $WHEELS (a folder).
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
if ! "$python" -c "import numpy, array_api_compat" 2>/dev/null; then
    "$python" -m venv .venv-gpu
    python=.venv-gpu/bin/python
    if [ -n "${WHEELS:-}" ]; then
        "$python" -m pip install -q --no-index --find-links "$WHEELS" numpy array-api-compat pytest hypothesis cupy-cuda12x
    else
        "$python" -m pip install -q -e ".[test]" "jax[cuda12]" torch cupy-cuda12x
    fi
fi
export PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" ci/gpu_report.py "$@"
