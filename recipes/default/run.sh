#!/usr/bin/env bash
# The bundled model: from recordings to a folder that goes into the package.
#
#   recipes/default/run.sh --data DATA [KEY=VALUE …]
#     --stage 1 --stop-stage 6     1 train, 2 average, 3 train the presence head alone, 4 calibrate presence, 5 evaluate,
#                                  6 bundle and report
#     --size cpu|gpu               train_cpu.yaml or train_gpu.yaml, between …_clean.yaml (the training before it) and
#                                  …_presence.yaml (the training of the presence head after it)
#     --exp DIR                    folder of the experiment; by default exp/default_<size>. The trainings before and
#                                  after it are in DIR_clean and DIR_presence
#     --init CHECKPOINT            start from these weights; the training in DIR_clean is skipped
#     --bundle DIR                 folder of the bundle; by default bundle/ in that of --exp. The package ships
#                                  wesep_py/models/base
#     --calibrate-on LIST          trials/LIST.csv and its map, and LIST_absent; by default dev_2mix. Presence is also
#                                  calibrated on conversations of 12 and 60 s, simulated from speech/dev.csv
#     --check-on LIST              list on which the calibration is checked; by default dev_ls_2mix
#     --metrics NAMES              metrics of the evaluation; by default si_sdr,sdr,pesq,estoi
#     --hardware TEXT              description of the machine, for the card
#     --devices N                  number of training processes
#     --smoke                      a tiny network and a few steps, to check that everything is in place
#
# DATA holds speech/, noise/ and trials/ (see README.md). KEY=VALUE overrides a key of all trainings, such as
# data.workers=4. Repeat the command to resume an interrupted stage.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../options.sh"

data= exp= init= bundle= stage=1 stop_stage=6 size=cpu devices=1 smoke=false
calibrate_on=dev_2mix check_on=dev_ls_2mix metrics=si_sdr,sdr,pesq,estoi hardware="$(uname -m), $(getconf _NPROCESSORS_ONLN) cores"
options="data exp init bundle stage stop_stage size devices smoke calibrate_on check_on metrics hardware"
read_options "$@"
one_of size cpu gpu

config=$here/train_$size conditions="clean noisy" last=3 limit=50 lengths="12 60" talk=(--count 40)
exp=${exp:-exp/default_$size} bundle=${bundle:-$exp/bundle}
if $smoke; then config=$here/smoke conditions=clean metrics=si_sdr last=2 limit=1 lengths=5 talk=(--count 2 simulation.num_speakers=2); fi
averaged=$exp/checkpoints/last$last whole=$exp/checkpoints/whole calibrated=$exp/checkpoints/calibrated
common=("data.root=$data" "data.packed=$(dirname "$exp")/packed_default_$size")

# Run wesep evaluate into a folder ($1), unless it holds results. If those are of other weights, calibrate and bundle.py
# refuse them.
evaluate() {
  if [[ -f $1/summary.json ]]; then
    echo "$1 exists and is kept; remove it to evaluate again" >&2
  else
    wesep evaluate -o "$@"
  fi
}

# Evaluate a model ($1) on a list ($2) with the metrics $3, in all conditions, into a folder ($4).
evaluate_list() {
  local model=$1 name=$2 metrics=$3 output=$4 condition list=${2%_absent} speakers=()
  [[ ! -f $data/speech/${list%_*}.csv ]] || speakers=(--speakers "$data/speech/${list%_*}.csv")
  for condition in $conditions; do
    evaluate "$output/$name/$condition" --model "$model" --trials "$data/trials/$list.csv" --root "$data" \
      --enrollment "$data/trials/$name.map_mixture2enrollment" ${speakers[@]+"${speakers[@]}"} --metrics "$metrics" \
      --condition "$condition"
  done
}

# Simulate the conversations unless they exist, and evaluate a model ($1) on them with SI-SDR into a folder ($2).
evaluate_conversations() {
  local length mixtures
  for length in $lengths; do
    mixtures=$exp/conversations_$length
    wesep simulate "$here/conversations.yaml" "root=$data" "simulation.duration_s=$length" "${talk[@]}" -o "$mixtures"
    evaluate "$2/conversations_$length/noisy" --model "$1" --trials "$mixtures/mixture_mix_both.csv" --root "$mixtures" \
      --enrollment "$mixtures/map_mixture2enrollment" --condition noisy --metrics si_sdr
  done
}

needs "$data/speech/train.csv" "README.md describes what DATA holds"
for list in "$calibrate_on" "$check_on"; do
  needs "$data/trials/${list}_absent.map_mixture2enrollment" "presence is calibrated on such a list"
done

if at_stage 1 "train: $exp"; then
  if [[ -z $init ]]; then
    train "${config}_clean.yaml" "experiment=${exp}_clean" "${common[@]}"
    init=${exp}_clean
  fi
  train "$config.yaml" "experiment=$exp" "init.checkpoint=$init" "${common[@]}"
fi

if at_stage 2 "average: the $last last snapshots"; then
  wesep average "$exp" --last "$last" -o "$averaged" --overwrite
fi

if at_stage 3 "train the presence head: ${exp}_presence"; then
  train "${config}_presence.yaml" "experiment=${exp}_presence" "init.checkpoint=$averaged" "${common[@]}"
  wesep average "${exp}_presence" --last "$last" -o "$whole" --overwrite
fi

if at_stage 4 "calibrate presence on $calibrate_on, check it on $check_on"; then
  for list in "$calibrate_on" "$check_on"; do
    for name in "$list" "${list}_absent"; do evaluate_list "$whole" "$name" si_sdr "$exp/uncalibrated"; done
  done
  evaluate_conversations "$whole" "$exp/uncalibrated"
  rm -rf "$calibrated" # a copy, because the calibration is written into it
  cp -r "$whole" "$calibrated"
  results() {
    for condition in $conditions; do echo "$exp/uncalibrated/"{"$1","$1_absent"}"/$condition"; done
  }
  read -ra fitted <<<"$(results "$calibrate_on" | tr '\n' ' ')"
  for length in $lengths; do fitted+=("$exp/uncalibrated/conversations_$length/noisy"); done
  read -ra checked <<<"$(results "$check_on" | tr '\n' ' ')"
  if ! wesep calibrate "${fitted[@]}" "${checked[@]/#/--check=}" --model "$calibrated"; then
    $smoke || die "presence could not be calibrated; the message above says why"
    echo "not calibrated: the few steps of --smoke are too few for the presence head" >&2
  fi
fi

if at_stage 5 "evaluate: every list in $data/trials"; then
  for map in "$data"/trials/*.map_mixture2enrollment; do
    evaluate_list "$calibrated" "$(basename "$map" .map_mixture2enrollment)" "$metrics" "$exp/results"
  done
  evaluate_conversations "$calibrated" "$exp/results"
fi

if at_stage 6 "bundle and report: $bundle"; then
  python "$here/bundle.py" "$calibrated" "recipe=recipes/default/run.sh --size $size" "hardware=$hardware" \
    -o "$bundle" --half --results "$exp/results" --root "$data" --limit "$limit" --overwrite \
    --trials "$data/trials/$calibrate_on" --trials "$data/trials/$check_on"
  for condition in $conditions; do
    for list in "$calibrate_on" "$check_on"; do
      wesep report "$exp/results/$list/$condition" --overwrite
      if $smoke; then break; fi
    done
  done
fi
