#!/usr/bin/env bash
# One run over two processes of this machine; the table is that of one process, bit for bit.
#   recipes/torchrun.sh [MODEL] [further flags of headtool score]
set -euo pipefail
model=${1:-demo}
[ $# -gt 0 ] && shift
torchrun --nproc-per-node "${PROCESSES:-2}" -m headtool score "$model" --threads 1 "$@"
