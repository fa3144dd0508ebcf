#!/usr/bin/env bash
# Which heads matter, and which ones learn: fine-tune, score before and after, report; for several seeds.
#   recipes/plasticity.sh [MODEL] [TRAIN] [EVAL] [OUT]        no files: the built-in task, on the built-in encoder
# SEEDS, EPOCHS, LIMIT (training rows), SUBSET (evaluation rows), TOP_K are environment variables. Run again, it goes on.
set -euo pipefail
model=${1:-demo-encoder} train=${2:-} eval=${3:-} out=${4:-plasticity}
runs=()
rows=(--task demo)
if [ -n "$train" ]; then rows=(--train "$train" --eval "$eval"); fi
for seed in ${SEEDS:-1 2 3}; do
  to=$out/seed-$seed
  headtool finetune "$model" "${rows[@]}" \
    ${LIMIT:+--limit "$LIMIT"} --epochs "${EPOCHS:-3}" --subset "${SUBSET:-1024}" --probe --seed "$seed" --out "$to/finetune" >&2
  data=(${eval:+--data "$eval"} --subset "${SUBSET:-1024}" --seed "$seed" ${TOP_K:+--top-k "$TOP_K"})
  runs+=("$(headtool score "$to/finetune/ckpt_init" --scores ablation,gradient,fisher "${data[@]}" --out "$to/pre")")
  runs+=("$(headtool score "$to/finetune/ckpt_final" --scores ablation,update --init "$to/finetune/ckpt_init" "${data[@]}" --out "$to/post")")
done
headtool report "${runs[@]}" ${TOP_K:+--top-k "$TOP_K"} --out "$out/report"
