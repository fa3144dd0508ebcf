#!/usr/bin/env bash
# Score several models on one data set and print the top head of each.
#   recipes/score-many.sh DATA MODEL...        (default: the built-in rows, the built-in decoder twice)
set -euo pipefail
data=${1:-}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] || set -- demo demo-encoder
for model in "$@"; do
  run=$(headtool score "$model" ${data:+--data "$data"} --scores out,ent,task,combined -q)
  echo "$model $(head -c 300 "$run/topk_global.json" | tr -d '\n ' | sed 's/},.*/}/; s/^\[//')"
done
