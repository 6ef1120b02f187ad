#!/usr/bin/env bash
# The wheels that a machine with a GPU but no package index may lack, a few hundred kB of pure Python, into .gpu/, which
# git ignores.
set -euo pipefail
cd "$(dirname "$0")/.."
rm -rf .gpu/*.whl .gpu/site
"${PYTHON:-python3}" -m pip download -q --no-deps --only-binary=:all: -d .gpu \
    array-api-compat==1.16.0 array-api-strict==2.6.1 array-api-extra==0.11.5 torchnmf==0.3.5
ls -l .gpu
