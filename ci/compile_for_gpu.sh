#!/usr/bin/env bash
# Compile the kernels for A100, L4, H100, B200 and RTX 5090 with the newest JAX, without a GPU. It is no stage of CI: its
# environment takes 1.3 GB, and the 100 compilations some minutes of a core.
# $PYTHON chooses the Python: the newest has the newest JAX.
set -euo pipefail
cd "$(dirname "$0")/.."

rm -rf .venv-gpu-compiler
"${PYTHON:-python3}" -m venv .venv-gpu-compiler
.venv-gpu-compiler/bin/pip install -q jax jax-cuda13-plugin jax-cuda13-pjrt nvidia-cuda-nvcc
.venv-gpu-compiler/bin/pip install -q -e .
.venv-gpu-compiler/bin/python ci/compile_for_gpu.py
