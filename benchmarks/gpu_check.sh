#!/usr/bin/env bash
# On a machine with CUDA: what the machine can do, the tests of kernels and engines, then the
# measurements of both, of rule="secant" and of rule="auto", in 10 minutes.
#
#   benchmarks/gpu_check.sh [FOLDER]     results go there (benchmarks/results); a short table last
#
# PYTHON names an interpreter with torch, triton, transformers, pytest and pytest-benchmark; captum
# is measured if it is there. COMMIT says what is measured where there is no git. Every part has its
# own time limit and its own file, written run by run, so that nothing that was measured is lost.
set -uo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
out=${1:-benchmarks/results}
export PYTHONPATH="$PWD:$PWD/kernels" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
mkdir -p "$out"
failed=()

part() { # NAME SECONDS COMMAND...
    local name=$1 limit=$2 start=$SECONDS
    shift 2
    echo "== $name"
    timeout --kill-after=5 "$limit" "$@" >"$out/$name.log" 2>&1 || failed+=("$name")
    tail -n 4 "$out/$name.log"
    echo "== $name: $((SECONDS - start)) s"
}

bench() { # NAME SECONDS FILE ARGUMENTS...
    local name=$1 limit=$2 file=$3
    shift 3
    rm -f "$out/$name.json" # an old table must not pass for a new one
    part "$name" "$limit" "$python" -m pytest "benchmarks/$file" --override-ini addopts= \
        --override-ini filterwarnings=default --results="$out/$name.json" -q "$@"
}

bench gpu-machine 50 bench_machine.py
workers=()
"$python" -c "import xdist" 2>/dev/null && workers=(-n 8) # hundreds of kernels to compile
part gpu-tests 110 "$python" -m pytest -q "${workers[@]}" --override-ini filterwarnings=default \
    tests/engine --ignore tests/engine/test_every_architecture.py # two hundred models, on a CPU
bench gpu-7B 150 bench_engines.py --suite gpu-quick --repeats 1 \
    -k "7B and not hand and not torch"
bench gpu-1.5B 115 bench_engines.py --suite gpu-quick --repeats 2 -k "1.5B"
bench gpu-ops 60 bench_ops.py --repeats 2
bench gpu-secant 45 bench_secant.py --repeats 1
bench gpu-rules 45 bench_rules.py --suite gpu-quick --repeats 1 -k "reasoning and not linspace"

for name in gpu-machine gpu-ops gpu-1.5B gpu-7B gpu-secant gpu-rules; do
    [ -f "$out/$name.json" ] && "$python" benchmarks/table.py "$out/$name.json"
done
[ "$out" = benchmarks/results ] && "$python" benchmarks/table.py # the README's tables
tail -n 1 "$out/gpu-tests.log"
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed or out of time: ${failed[*]} (see $out/*.log)"
    exit 1
fi
echo "all parts ran in $SECONDS s"
