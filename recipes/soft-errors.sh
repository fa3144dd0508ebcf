#!/usr/bin/env bash
# Which bits and sites harm, what catches it, and what that costs: four runs a model, and one page of tables on stdout.
#   recipes/soft-errors.sh [OUT] [MODEL DATA]...        nothing named: the built-in model on its own rows
# SEEDS (elements a site and layer), SEQUENCES are environment variables. Run again, it goes on.
set -euo pipefail
out=${1:-soft-errors}; shift || true
pairs=("$@")
if [ ${#pairs[@]} = 0 ]; then pairs=(demo ""); fi
runs=()
for ((i = 0; i < ${#pairs[@]}; i += 2)); do
  model=${pairs[i]} data=${pairs[i + 1]:-}
  name=$(basename "$model")
  same=("$model" ${data:+--data "$data"} --seeds "${SEEDS:-1-8}" --sequences "${SEQUENCES:-32}" -q)
  runs+=("$(headtool inject "${same[@]}" --detect strict,hull --dtype fp32 --out "$out/$name/self")")
  runs+=("$(headtool inject "${same[@]}" --detect standard --bounds golden --dtype fp32 --out "$out/$name/golden")")
  runs+=("$(headtool inject "${same[@]}" --detect strict --dtype bf16 --out "$out/$name/bf16")")
  runs+=("$(headtool inject "${same[@]}" --detect standard,kv-identity --force-kv-equal --dtype fp32 --out "$out/$name/kv")")
done
python3 - "${runs[@]}" <<'PY'
import json, sys
from pathlib import Path
import polars as pl

def rate(row, kind):
    if row[f"{kind}_rate"] is None:
        return "none harmful"
    return f"{row[f'{kind}_rate']:.1%} ({row[f'{kind}_low']:.1%} to {row[f'{kind}_high']:.1%})"

def table(heads, rows):
    print("| " + " | ".join(heads) + " |", "|" + "---|" * len(heads), *("| " + " | ".join(row) + " |" for row in rows), "", sep="\n")

total, runs = 0, [Path(run) for run in sys.argv[1:]]
for run in runs:
    manifest = json.loads((run / "manifest.json").read_text())
    read = lambda name: pl.read_parquet(run / "tables" / f"{name}.parquet")
    total += manifest["trials"]
    print(f"## {run.parent.name}, {run.name}: {manifest['trials']:,} faults, {manifest['model']['dtype']}\n")
    rows = []
    summary = read("summary")
    for row in summary.filter(layer=-1, bit=-1).iter_rows(named=True):
        bits = summary.filter(pl.col("bit") >= 0, pl.col("harmful") > 0, site=row["site"], layer=-1).sort("harmful_rate", descending=True)
        worst = ", ".join(f"{b} ({r:.0%})" for b, r in zip(bits["bit"][:4], bits["harmful_rate"][:4]))
        rows.append([row["site"], f"{row['n']:,}", rate(row, "harmful"), f"{row['nonfinite']:,}", worst or "none", rate(row, "caught")])
    table(["site", "faults", "harmful", "not finite", "worst bits", "caught"], rows)
    rows = []
    for row in read("detectors").iter_rows(named=True):
        clean = f"{row['false_positives']} of {row['clean']:,} (at most {row['false_positive_high']:.2%})"
        rows.append([row["detector"], rate(row, "caught"), f"{row['needless']:,} of {row['harmless']:,}", clean])
    table(["detector", "caught of the harmful", "alarms at harmless faults", "false positives"], rows)
    cost = {row["metric"]: row["median"] for row in read("performance").iter_rows(named=True)}
    over = ", ".join(f"{name} {cost[f'overhead_{name}_pct']:+.0f}%" for name in ("injection", "bounds", "detection") if f"overhead_{name}_pct" in cost)
    equal = read("kv_check")
    print(f"Added to a plain pass: {over}. K = V in {int(equal['kv_equal'].sum())} of {equal.height} layers.\n")
print(f"{total:,} faults in {len(runs)} runs.")
PY
