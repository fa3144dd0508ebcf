#!/usr/bin/env bash
# How much does a ranking depend on which examples were drawn? Five samples, the overlap of their top heads.
#   recipes/five-seeds.sh [MODEL] [DATA]
set -euo pipefail
model=${1:-demo} data=${2:-}
runs=()
for seed in 1 2 3 4 5; do
  runs+=("$(headtool score "$model" ${data:+--data "$data"} --subset 64 --subset-seed "$seed" -q)")
done
python3 - "${runs[@]}" <<'PY'
import json, sys
tops = [{(h["layer"], h["head"]) for h in json.load(open(f"{run}/topk_global.json"))} for run in sys.argv[1:]]
both = set.intersection(*tops)
print(f"{len(tops)} samples: {len(both)} of {len(tops[0])} heads are in every top {len(tops[0])}")
PY
