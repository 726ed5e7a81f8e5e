#!/usr/bin/env bash
# Trains and evaluates the students of this folder's table. Needs SOCRATIC_DATA and the student's GGUF file:
#   bash results/gsm8k-smollm2-cpu/run.sh models/SmolLM2-135M-Instruct.Q4_1.gguf runs
# Called again, it continues where it stopped.
set -euo pipefail
student=${1:?usage: run.sh STUDENT RUNS} runs=${2:?usage: run.sh STUDENT RUNS}
problems=300

common=(--chains gold:gsm8k --student "$student" --set limit=768 --set epochs=1 --set dev_limit=64
        --set batch_size=8 --set learning_rate=2.5e-4)
socratic train qa "${common[@]}" --out "$runs/qa"
socratic train qg "${common[@]}" --out "$runs/qg"
socratic train cot "${common[@]}" --out "$runs/cot"
socratic train qg "${common[@]}" --qg-sees questions --out "$runs/qg-plan"

for calculator in on off; do
  common=(gsm8k --split test --limit "$problems" --calculator "$calculator")
  socratic evaluate "${common[@]}" --solver cot --lm "$runs/cot" --out "$runs/cot-$calculator"
  socratic evaluate "${common[@]}" --qg "$runs/qg" --qa "$runs/qa" --out "$runs/iterative-$calculator"
  socratic evaluate "${common[@]}" --qg "$runs/qg-plan" --qa "$runs/qa" --out "$runs/plan-$calculator"
done
socratic compare "$runs"/{cot,iterative,plan}-{on,off}
