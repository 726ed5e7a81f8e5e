#!/usr/bin/env bash
# The whole way at small size for other kinds of student and data: that it runs, not what it could reach.
#   bash results/small-cpu/run.sh models/SmolLM2-135M-Instruct.Q4_1.gguf runs/small
set -euo pipefail
student=${1:?usage: run.sh STUDENT RUNS} runs=${2:?usage: run.sh STUDENT RUNS}

for kind in gpt2 t5; do
  train=(--chains gold:gsm8k --student "scratch:$kind-tiny" --set limit=96 --set epochs=1 --set dev_limit=16)
  for role in qg qa cot; do socratic train "$role" "${train[@]}" --out "$runs/$kind-$role"; done
  test=(gsm8k --split test --limit 50 --set max_tokens=32 --set max_rationale_tokens=64 --set max_steps=4)
  socratic evaluate "${test[@]}" --qg "$runs/$kind-qg" --qa "$runs/$kind-qa" --out "$runs/$kind-iterative"
  socratic evaluate "${test[@]}" --solver cot --lm "$runs/$kind-cot" --out "$runs/$kind-chain"
done

train=(--chains gold:strategyqa --student "$student" --set limit=96 --set epochs=1 --set dev_limit=16 --set batch_size=8)
for role in qg qa answer; do socratic train "$role" "${train[@]}" --out "$runs/strategyqa-$role"; done
test=(strategyqa --split test --limit 50 --set max_tokens=64 --set max_steps=5)
socratic evaluate "${test[@]}" --qg "$runs/strategyqa-qg" --qa "$runs/strategyqa-qa" --out "$runs/strategyqa-iterative"
socratic evaluate "${test[@]}" --solver answer --lm "$runs/strategyqa-answer" --out "$runs/strategyqa-answer-only"

socratic compare "$runs"/{gpt2,t5}-{chain,iterative}
socratic compare "$runs"/strategyqa-{answer-only,iterative}
