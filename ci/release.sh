#!/usr/bin/env bash
# A release from a clean checkout: build, check, tag, notes. Nothing leaves this machine; the last lines say what does.
#
# bash ci/release.sh VERSION    with the VERSION of src/nmf_xp/__init__.py, as 0.1.0
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python}
version=${1:?"usage: bash ci/release.sh VERSION"}

stop() { echo "release.sh: $1" >&2 && exit 2; }
[ -z "$(git status --porcelain)" ] || stop "there are changes that are not committed"
git rev-parse -q --verify "refs/tags/v$version" >/dev/null && stop "the tag v$version is there already"
"$PYTHON" ci/notes.py "$version" >/dev/null # what the tree says of its version agrees
if [ -n "${REHEARSAL:-}" ]; then echo "rehearsed: v$version can be released" && exit; fi

bash ci/wheels.sh dist
build/zig/bin/pip install -q twine
build/zig/bin/python -m twine check --strict dist/*
"$PYTHON" ci/notes.py "$version" >"dist/notes-$version.md"
git tag -a "v$version" -F "dist/notes-$version.md"
echo "tagged v$version; notes in dist/notes-$version.md. To publish:"
echo "  git push origin v$version && $PYTHON -m twine upload dist/*.whl dist/*.tar.gz"
