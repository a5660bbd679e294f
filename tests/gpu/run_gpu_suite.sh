#!/usr/bin/env bash
# Runs what needs a GPU, from an unpacked bundle; --help tells more.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PYTHONPATH="$here/tests/gpu${PYTHONPATH:+:$PYTHONPATH}" exec "${MUSTER_PYTHON:-python3}" -m suite --bundle "$here" "$@"
