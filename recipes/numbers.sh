#!/usr/bin/env bash
# Does a Cauchy say more of a number than its median? The causal model against the median and softmax + L1, three seeds.
#   recipes/numbers.sh [MODEL] [OUT] [NAME=TRAIN,EVAL,TEXT_FIELD,VALUE_FIELD[,LIMIT] ...]
# LIMIT is of training rows. Without data: "{a} plus {b} is {c}" alone. Environment: SEEDS, LR, GAMMA0, GATE_ALPHA, EPOCHS (of
# data), EPOCHS_MADE, EXAMPLES (made), SUBSET (evaluation rows), MAX_LENGTH. Run again, it goes on. It prints a Markdown table.
set -euo pipefail
model=${1:-demo} out=${2:-numbers}
shift $(($# < 2 ? $# : 2))
common=(--lr "${LR:-3e-3}" --gamma0 "${GAMMA0:-0.1}" --gate-alpha "${GATE_ALPHA:-1}" --max-length "${MAX_LENGTH:-160}" --subset "${SUBSET:-all}" -q)
runs=()
for seed in ${SEEDS:-1 2 3}; do
  runs+=("$(headtool causal-train "$model" --task addition --examples "${EXAMPLES:-2000}" --epochs "${EPOCHS_MADE:-10}" \
    "${common[@]}" --seed "$seed" --out "$out/addition/seed-$seed")")
  for set in "$@"; do
    IFS=, read -r train eval text value limit <<<"${set#*=}"
    runs+=("$(headtool causal-train "$model" --data "$train" --eval "$eval" --text-field "$text" --value-field "$value" \
      --epochs "${EPOCHS:-2}" ${limit:+--limit "$limit"} "${common[@]}" --seed "$seed" --out "$out/${set%%=*}/seed-$seed")")
  done
done
python3 - "${runs[@]}" <<'PY'
import csv, statistics, sys
from collections import defaultdict
from pathlib import Path

shown = ["mae", "mdae", "picp_50", "picp_80", "picp_95", "width_median_80", "width_median_95", "pinball_80", "nll"]
found = defaultdict(list)
for run in sys.argv[1:]:
    for row in csv.DictReader(open(f"{run}/tables/results.csv")):
        if row["value"]:
            found[Path(run).parent.name, row["config"], row["metric"]].append(float(row["value"]))
print(f"| data | configuration | {' | '.join(shown)} |\n|---|---|{'---|' * len(shown)}")
for data, config in sorted({key[:2] for key in found}):
    cells = []
    for metric in shown:
        values = found[data, config, metric]
        spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 and statistics.stdev(values) else ""
        cells.append(f"{statistics.mean(values):.4g}{spread}" if values else "")
    print(f"| {data} | {config} | {' | '.join(cells)} |")
PY
