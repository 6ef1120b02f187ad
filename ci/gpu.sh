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
limit=60
for ((i = 1; i < $#; i++)); do  # nothing takes longer than the whole budget
    if [ "${!i}" = --budget ]; then
        j=$((i + 1))
        if [ "${!j%.*}" -lt $limit ] 2>/dev/null; then limit=${!j%.*}; fi
    fi
done
status=0
timeout -k 1 "$limit" "$python" -c "import numpy, array_api_compat" 2>/dev/null || status=$?
if [ $status -ge 124 ]; then
    echo "$python did not import numpy within $limit s" >&2
    exit 2
elif [ $status != 0 ]; then
    wheels=(.gpu/*.whl)
    if [ ! -e "${wheels[0]}" ]; then
        echo "$python lacks numpy or array-api-compat, and .gpu/ has no wheels: run ci/gpu_wheels.sh where pip works" >&2
        exit 2
    fi
    site=$PWD/.gpu/site
    timeout "$limit" "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
        --target "$site" "${wheels[@]}"
    export PYTHONPATH="${PYTHONPATH:+$PYTHONPATH:}$site"
fi
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" -m ci.gpu --spent "$SECONDS" "$@"
