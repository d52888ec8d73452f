#!/usr/bin/env bash
# The bundled model: from recordings to a folder that goes into the package.
#
#   recipes/default/run.sh --data DATA [KEY=VALUE …]
#     --stage 1 --stop-stage 5     1 train, 2 average, 3 evaluate, 4 calibrate presence, 5 bundle and report
#     --size cpu|gpu               train_cpu.yaml or train_gpu.yaml, and before it its first stage, …_clean.yaml
#     --exp DIR                    the experiment; by default exp/default_<size>; its first stage is DIR_clean
#     --init CHECKPOINT            goes on from these weights instead of making the first stage
#     --bundle DIR                 by default DIR of --exp, /bundle; wesep_py/models/base is what the package ships
#     --calibrate-on LIST          trials/LIST.csv and its map, and LIST_absent; by default dev_2mix
#     --check-on LIST              where the calibration is looked at; by default dev_ls_2mix
#     --metrics NAMES              of the evaluation; by default si_sdr,sdr,pesq,estoi
#     --hardware TEXT              for the card
#     --devices N                  processes to train in
#     --smoke                      a tiny network, a few steps: to see that everything is in its place
#
# DATA holds speech/, noise/ and trials/ as in README.md. KEY=VALUE goes to wesep train, in both stages: data.workers=4.
# Each stage goes on where it was interrupted.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../options.sh"

data= exp= init= bundle= stage=1 stop_stage=5 size=cpu devices=1 smoke=false
calibrate_on=dev_2mix check_on=dev_ls_2mix metrics=si_sdr,sdr,pesq,estoi hardware="$(uname -m), $(getconf _NPROCESSORS_ONLN) cores"
options="data exp init bundle stage stop_stage size devices smoke calibrate_on check_on metrics hardware"
read_options "$@"
one_of size cpu gpu

config=$here/train_$size conditions="clean noisy" last=3 limit=50
exp=${exp:-exp/default_$size} bundle=${bundle:-$exp/bundle}
if $smoke; then config=$here/smoke conditions=clean metrics=si_sdr last=2 limit=1; fi
averaged=$exp/checkpoints/last$last calibrated=$exp/checkpoints/calibrated

# The results of list $1, with its target or without (_absent), in all conditions.
results_of() {
  local condition
  for condition in $conditions; do echo "$exp/results/$1/$condition" "$exp/results/$1_absent/$condition"; done
}

needs "$data/speech/train.csv" "see README.md for what DATA holds"
for list in "$calibrate_on" "$check_on"; do
  needs "$data/trials/${list}_absent.map_mixture2enrollment" "the presence is calibrated on such a list"
done

if at_stage 1 "train: $exp"; then
  common=("data.root=$data" "data.packed=$(dirname "$exp")/packed_default_$size")
  if [[ -z $init ]]; then
    train "${config}_clean.yaml" "experiment=${exp}_clean" "${common[@]}"
    init=${exp}_clean
  fi
  train "$config.yaml" "experiment=$exp" "init.checkpoint=$init" "${common[@]}"
fi

if at_stage 2 "average: the $last last snapshots"; then
  wesep average "$exp" --last "$last" -o "$averaged" --overwrite
fi

if at_stage 3 "evaluate: every list in $data/trials"; then
  for map in "$data"/trials/*.map_mixture2enrollment; do
    name=$(basename "$map" .map_mixture2enrollment) list=$(basename "${map%_absent.*}" .map_mixture2enrollment)
    set_name=${list%_*}
    speakers=()
    [[ ! -f $data/speech/$set_name.csv ]] || speakers=(--speakers "$data/speech/$set_name.csv")
    for condition in $conditions; do
      wesep evaluate --model "$averaged" --trials "$data/trials/$list.csv" --enrollment "$map" --root "$data" \
        ${speakers[@]+"${speakers[@]}"} --condition "$condition" --metrics "$metrics" \
        -o "$exp/results/$name/$condition"
    done
  done
fi

if at_stage 4 "calibrate presence on $calibrate_on, look at it on $check_on"; then
  rm -rf "$calibrated" # the results are of a model that is not calibrated; so is this copy, before
  cp -r "$averaged" "$calibrated"
  read -ra fitted <<<"$(results_of "$calibrate_on" | tr '\n' ' ')"
  read -ra checked <<<"$(results_of "$check_on" | tr '\n' ' ')"
  if ! wesep calibrate "${fitted[@]}" "${checked[@]/#/--check=}" --model "$calibrated"; then
    $smoke || die "the presence could not be calibrated; the message above says why"
    echo "after so few steps the head cannot tell yet: not calibrated" >&2
  fi
fi

if at_stage 5 "bundle and report: $bundle"; then
  python "$here/bundle.py" "$calibrated" "recipe=recipes/default/$(basename "$config").yaml" "hardware=$hardware" \
    -o "$bundle" --half --results "$exp/results" --root "$data" --limit "$limit" --overwrite \
    --trials "$data/trials/$calibrate_on" --trials "$data/trials/$check_on"
  for condition in $conditions; do
    for list in "$calibrate_on" "$check_on"; do
      wesep report "$exp/results/$list/$condition" --overwrite
      if $smoke; then break; fi
    done
  done
fi
