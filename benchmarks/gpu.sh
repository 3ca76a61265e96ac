#!/bin/sh
# For a GPU machine without a network that has torch and transformers but not our other packages.
#
#   benchmarks/gpu.sh wheels   here, with a network: the missing packages as wheels into .whl/
#   benchmarks/gpu.sh          there: installs .whl/ beside (nothing there is changed), then runs benchmarks/gpu.py
#
# Models, attention and benchmarks need torch, numpy, safetensors, tokenizers and transformers only; without the wheels
# just the sample run is left out. Variables: PYTHON, WHEELS, SITE, PYTHON_VERSION (there), PLATFORMS, PACKAGES.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3}
WHEELS=${WHEELS:-.whl}
SITE=${SITE:-${TMPDIR:-/tmp}/xlmrxl_site}
PYTHON_VERSION=${PYTHON_VERSION:-3.12}
PLATFORMS=${PLATFORMS:-"manylinux_2_28_x86_64 manylinux_2_27_x86_64 manylinux_2_17_x86_64 manylinux2014_x86_64"}
# Versions: constraints.txt. What such a machine has beside torch (pyarrow, pandas, fsspec, ...) is not carried: 7 MB
# instead of 73; name what yours lacks in PACKAGES. antlr4 has no wheel on the index and is built here.
PACKAGES=${PACKAGES:-"hydra-core omegaconf datasets evaluate dill multiprocess conllu langcodes language-data marisa-trie plotly
          torchao hjson pydantic pydantic-core annotated-types typing-inspection"}
BUILT=${BUILT-"antlr4-python3-runtime deepspeed"}

if [ "${1:-}" = wheels ]; then
    mkdir -p "$WHEELS"
    platforms=""
    for platform in $PLATFORMS; do platforms="$platforms --platform $platform"; done
    # shellcheck disable=SC2086
    $PYTHON -m pip download --quiet --no-deps --only-binary=:all: --implementation cp \
        --python-version "$PYTHON_VERSION" $platforms --constraint constraints.txt --dest "$WHEELS" $PACKAGES
    # shellcheck disable=SC2086
    [ -z "$BUILT" ] || $PYTHON -m pip wheel --quiet --no-deps --constraint constraints.txt --wheel-dir "$WHEELS" $BUILT
    ls -1 "$WHEELS"
    exit 0
fi

if ls "$WHEELS"/*.whl >/dev/null 2>&1; then
    $PYTHON -m pip install --quiet --no-index --no-deps --no-cache-dir --upgrade --target "$SITE" "$WHEELS"/*.whl
    PYTHONPATH="$SITE${PYTHONPATH:+:$PYTHONPATH}"
    export PYTHONPATH
else
    echo "no wheels in $WHEELS: the sample run may be left out (make gpu-wheels makes them, where there is a network)"
fi
exec $PYTHON -m benchmarks.gpu "$@"
