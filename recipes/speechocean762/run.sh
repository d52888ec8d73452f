#!/usr/bin/env bash
# speechocean762: from the recordings to pages of results.
#
#   recipes/speechocean762/run.sh --data DATA [KEY=VALUE …]
#     --stage 1 --stop-stage 5     1 prepare, 2 train, 3 average, 4 evaluate, 5 report
#     --work DIR                   folder for the output of stage 1; by default DATA/speechocean762_lists
#     --exp DIR                    folder of the experiment; by default exp/speechocean762
#     --devices N --jobs N         number of training processes; of processes that prepare
#     --smoke                      a tiny network and a few steps, to check that everything is in place
#
# DATA holds speech/*.csv, trials/ and noise/ (see README.md), or the downloaded corpus in speechocean762/, and noise/;
# stage 1 then writes manifests and trials into DIR of --work. KEY=VALUE overrides a key of the training, such as
# optim.lr=0.0005. Repeat the command to resume an interrupted stage.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../options.sh"

data= work= exp=exp/speechocean762 stage=1 stop_stage=5 devices=1 jobs=$(getconf _NPROCESSORS_ONLN) smoke=false
options="data work exp stage stop_stage devices jobs smoke"
read_options "$@"

config=$here/train.yaml metrics=si_sdr,sdr,pesq,estoi last=3 extremes=5 count=250
if $smoke; then config=$here/smoke.yaml metrics=si_sdr last=2 extremes=1 count=2; fi
source "$here/lists.sh"
list=$data/trials/dev_2mix.csv map=$data/trials/dev_2mix.map_mixture2enrollment list_root=$data
if [[ ! -f $list ]]; then
  list=$work/trials/mixture_mix_both.csv map=$work/trials/map_mixture2enrollment list_root=$work/trials
fi

if at_stage 1 "prepare: manifests and trials"; then
  need_manifests
  needs "$data/noise/train" "make a folder of noise recordings of any kind"
  if [[ $list_root != "$data" ]]; then
    mkdir -p "$work"
    wesep simulate "$here/trials.yaml" "root=$root" "speech=[$dev]" "noise=[$data/noise/dev]" \
      -o "$list_root" --count "$count" --jobs "$jobs"
  fi
fi

if at_stage 2 "train: $exp"; then
  train "$config" "experiment=$exp" "data.root=$root" "data.train=[$train]" "data.noise=[$data/noise/train]" \
    "data.packed=$exp/packed" "validation.root=$list_root" "validation.trials=$list" "validation.enrollment=$map"
fi

if at_stage 3 "average: the $last last snapshots"; then
  wesep average "$exp" --last "$last" -o "$exp/checkpoints/last$last" --overwrite
fi

if at_stage 4 "evaluate: speakers who are not in the training data"; then
  for condition in clean noisy; do
    wesep evaluate --model "$exp/checkpoints/last$last" --trials "$list" --enrollment "$map" --root "$list_root" \
      --speakers "$dev" --condition "$condition" --metrics "$metrics" --save-extremes "$extremes" \
      -o "$exp/results/$condition"
  done
fi

if at_stage 5 "report"; then
  for condition in clean noisy; do wesep report "$exp/results/$condition" --overwrite; done
fi
