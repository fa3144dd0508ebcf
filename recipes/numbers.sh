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
import sys
from pathlib import Path

import polars as pl

shown = ["mae", "mdae", "picp_50", "picp_80", "picp_95", "width_median_80", "width_median_95", "pinball_80", "nll"]
frames = [pl.read_parquet(f"{run}/tables/results.parquet").with_columns(data=pl.lit(Path(run).parent.name)) for run in sys.argv[1:]]
found = (
    pl.concat(frames).filter(pl.col("metric").is_in(shown)).group_by("data", "config", "metric")
    .agg(mean=pl.col("value").mean(), sd=pl.col("value").std(), n=pl.col("value").count())
)  # fmt: skip
print(f"| data | configuration | {' | '.join(shown)} |\n|---|---|{'---|' * len(shown)}")
for data, config in found.select("data", "config").unique().sort("data", "config").iter_rows():
    cells = []
    for metric in shown:
        row = found.filter(data=data, config=config, metric=metric)
        known = row.height and row["mean"].item() is not None
        cells.append(f"{row['mean'].item():.4g}" + (f" ± {row['sd'].item():.2g}" if row["sd"].item() else "") if known else "")
    print(f"| {data} | {config} | {' | '.join(cells)} |")
PY
