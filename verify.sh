set -u
export PYTHONPATH=/tmp/site:$PWD PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1
SECONDS=0
rm -rf ~/.triton
log() { "${@:2}" 2>&1 | tee -a "$OUT/$1.log"; echo "== $1: rc ${PIPESTATUS[0]} at $SECONDS s"; }
log slabs timeout -s ABRT 100 python3 -m pytest -m gpu -q -x -p no:cacheprovider --durations=8 --tb=short tests/gpu/test_slabs.py
log checkpoints timeout -s ABRT 290 python3 -m bench.gpu.checkpoints --out "$OUT/checkpoints.json"
rm -rf ~/.triton
log answers timeout -s ABRT 100 python3 -m bench.common.answers bench/results/answers-h200.json --device cuda
log options timeout -s ABRT 110 python3 -m pytest -m gpu -q -p no:cacheprovider --durations=5 --tb=short tests/gpu/test_options.py tests/gpu/test_scoring.py tests/gpu/test_decode_step.py
log decode timeout -s ABRT 45 python3 -m bench.gpu.decode --batches 1,32,128 --out "$OUT/decode.json"
