#!/usr/bin/env bash
# All that a machine with a GPU is asked, in stages that write each result as it is found, within a budget of seconds.
#
#   bash ci/gpu.sh --budget 340 --stages probe,kit,exact,time
#   bash ci/gpu.sh --budget 400 --stages tests,variants,profile
#   bash ci/gpu.sh --small                                         # a rehearsal on the CPU
#
# $OUT (or gpu-out/) gets results.jsonl, log.txt, profile.txt and gpu-report.md. With a GPU docs/gpu-report.md is
# written too, and the results are kept beside it.
# Takes ${PYTHON:-python3} as it is. What it lacks comes from the wheels in .gpu/, without a package index, and goes on
# PYTHONPATH: `bash ci/gpu_wheels.sh` fetches them where there is an index.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
if ! timeout 60 "$python" -c "import numpy, array_api_compat" 2>/dev/null; then
    wheels=(.gpu/*.whl)
    if [ ! -e "${wheels[0]}" ]; then
        echo "$python lacks numpy or array-api-compat, and .gpu/ has no wheels: run ci/gpu_wheels.sh where pip works" >&2
        exit 2
    fi
    site=$PWD/.gpu/site
    timeout 60 "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target "$site" "${wheels[@]}"
    export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$site"
fi
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m ci.gpu --spent "$SECONDS" "$@"
