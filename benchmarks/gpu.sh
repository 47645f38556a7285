#!/usr/bin/env bash
# Train, score and time bundles on a GPU, in one call:
#
#   benchmarks/gpu.sh OUT DATA [BUNDLE...]
#
# OUT     folder of what it makes: of each bundle weights, scores, tables and a log of each step.
# DATA    folder whose subfolders have the bundles' names; a bundle without one works on phantoms.
# BUNDLE  names below bundles/; all of them where none is given.
#
# The same call goes on where an earlier one was stopped: trainings from their checkpoints, and a
# step that ended well is not done again. A GPU computes in bfloat16, as `amp: auto` has it.
#
# Variables: PYTHON; WHEELS, a folder of wheels that are installed first, without a network; TINY=1
# for a try of the whole in minutes on any processor, whose figures say nothing.
set -uo pipefail
cd "$(dirname "$0")/.."
if [ $# -lt 2 ]; then
    echo "usage: benchmarks/gpu.sh OUT DATA [BUNDLE...]" >&2
    exit 2
fi
mkdir -p "$1"
out=$(realpath "$1")
data=$(realpath "$2")
shift 2
bundles=("$@")
if [ $# -eq 0 ]; then
    bundles=($(cd bundles && ls))
fi
python=${PYTHON:-python3}
export PYTHONPATH=$PWD PYTHONWARNINGS="ignore:parsing config_file" OMP_WAIT_POLICY=passive
if [ -n "${WHEELS:-}" ]; then
    "$python" -m pip install --quiet --no-index --no-deps "$WHEELS"/*.whl || exit 1
fi
device=$("$python" -c "import torch; print('cuda' if torch.cuda.is_available() else 'cpu')") || exit 1
echo "device: $device"

failed=()
step() {  # BUNDLE/NAME COMMAND...: run it once, with a log of its own, and go on if it fails
    local name=$1 start=$SECONDS
    shift
    if [ -e "$out/$name.done" ]; then
        echo "$name: done already"
    elif "$@" >"$out/$name.log" 2>&1; then
        echo "$name: $((SECONDS - start)) s" | tee "$out/$name.done"
    else
        echo "$name: failed after $((SECONDS - start)) s, see $name.log: $(tail -n 1 "$out/$name.log")"
        failed+=("$name")
    fi
}

for bundle in "${bundles[@]}"; do
    configs=bundles/$bundle/configs
    made=$out/$bundle
    mkdir -p "$made"
    given=() images=()
    if [ -d "$data/$bundle" ]; then
        given=(--dataset_dir "$data/$bundle")
        images=("${given[@]}")
    fi
    training=() rivals=() timing=(--device "$device" --out "$made" --rounds 20)
    few=(--studies 1000000) numbers=()
    if [ "${TINY:-}" = 1 ]; then
        training=(--max_epochs 1 --num_phantoms 4 --val_fraction 0.5 --val_interval 1)
        if grep -q "^cases_per_epoch:" "$configs/train.yaml"; then
            training+=(--cases_per_epoch 2)
        fi
        timing=(--device "$device" --out "$made" --rounds 1)
        rivals=(--no_memory --steps 2 --only own UNet --precision float32)
        few+=(--rounds 1 --numbers 1 2)
        numbers=(--samples 2)
    fi
    # The images wait in pinned memory and are copied while the GPU computes
    pinned=(--train#dataloader#pin_memory True --train#trainer#non_blocking True)
    bundle_run=("$python" -m monai.bundle run)
    step "$bundle/train" "${bundle_run[@]}" training --config_file "$configs/train.yaml" \
        --output_dir "$made/training" "${given[@]}" "${training[@]}" "${pinned[@]}"
    step "$bundle/score" "${bundle_run[@]}" \
        --config_file "['$configs/train.yaml','$configs/evaluate.yaml']" --part val \
        --model_path "$made/training/model.pt" --output_dir "$made/scores" \
        "${given[@]}" "${training[@]}"
    step "$bundle/rivals" "$python" -m benchmarks.speed.inference "bundles/$bundle" \
        "${timing[@]}" "${rivals[@]}"
    step "$bundle/compiled" "$python" -m benchmarks.speed.compiled "bundles/$bundle" "${timing[@]}"
    step "$bundle/levers" "$python" -m benchmarks.speed.levers "bundles/$bundle" "${timing[@]}" \
        --no_memory "${images[@]}"
    step "$bundle/samples" "$python" -m benchmarks.speed.samples "bundles/$bundle" "${timing[@]}" \
        --no_memory "${numbers[@]}"
    step "$bundle/step" "$python" -m benchmarks.speed.training_step "bundles/$bundle" \
        "${timing[@]}" --no_memory
    step "$bundle/cost" "$python" -m benchmarks.speed.cost "bundles/$bundle" --out "$made" \
        "${few[@]}" "${images[@]}"
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}"
    exit 1
fi
