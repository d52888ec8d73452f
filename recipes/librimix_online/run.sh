#!/usr/bin/env bash
# Train on mixtures simulated on the fly from LibriSpeech and the noise of WHAM!; evaluate on Libri2Mix or Libri3Mix.
#
#   recipes/librimix_online/run.sh --data DATA [KEY=VALUE …]
#     --stage 1 --stop-stage 5     1 prepare, 2 train, 3 average, 4 evaluate, 5 report
#     --speakers 2|3               number of speakers in a mixture
#     --train 100|360|460          training set: train-clean-100, -360, or both
#     --condition clean|both       without or with noise
#     --system NAME                one of the YAML files here: bsrnn_tfmap, bsrnn
#     --exp DIR                    folder of the run; by default exp/libri<N>mix_online_<train>_<condition>_<system>
#     --devices N --jobs N         GPUs to train on; processes that render
#     --smoke                      a tiny network and a few steps, to check that everything is in place
#
# KEY=VALUE overrides a key of the training, such as data.speeds=[0.9,1,1.1]. Repeat the command to
# resume an interrupted stage.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../options.sh"

data= exp= stage=1 stop_stage=5 speakers=2 train=100 condition=clean system=bsrnn_tfmap devices=1 jobs= smoke=false
options="data exp stage stop_stage speakers train condition system devices jobs smoke"
read_options "$@"
one_of train 100 360 460
source "$here/../librimix/render.sh"

metrics=si_sdr,sdr,pesq,estoi best=5
if $smoke; then system=smoke metrics=si_sdr best=2; fi
needs "$here/$system.yaml" "--system takes the name of a YAML file in $here"
exp=${exp:-exp/libri${speakers}mix_online_${train}_${condition}_$system}
case $train in 460) sets=(train-clean-100 train-clean-360) ;; *) sets=("train-clean-$train") ;; esac
manifests=("${sets[@]/%/.jsonl}")
case $condition in clean) noise=("data.noise=[]" "simulation.noise=null") ;; both) noise=("data.noise=[wham_noise/tr]") ;; esac

if at_stage 1 "prepare: manifests of ${sets[*]}; render $mixtures/{dev,test}"; then
  need_maps
  for set in "${sets[@]}"; do
    needs "$data/LibriSpeech/$set" "get this part of LibriSpeech, https://www.openslr.org/12"
    [[ -f $data/$set.jsonl ]] || wesep prepare librispeech "$data/LibriSpeech/$set" --root "$data" -o "$data/$set.jsonl"
  done
  [[ $condition == clean ]] || needs "$data/wham_noise/tr" "get the noise of WHAM!, http://wham.whisper.ai"
  render dev dev-clean
  render test test-clean
fi

if at_stage 2 "train: $exp"; then
  train "$here/$system.yaml" "experiment=$exp" "data.root=$data" "data.train=[$(IFS=,; echo "${manifests[*]}")]" \
    "${noise[@]}" "simulation.num_speakers=$speakers" \
    "validation.trials=$mixtures/dev" "validation.enrollment=$maps/dev/map_mixture2enrollment$suffix" \
    "validation.condition=$wesep_condition"
fi

average_evaluate_report
