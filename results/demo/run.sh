#!/usr/bin/env bash
# The demo over three seeds, in the root of a checkout after `make demo`.
set -euo pipefail
.venv/bin/socratic demo --set 'seeds=[0,1,2]' --json > results/demo/demo.json
