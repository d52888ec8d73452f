#!/usr/bin/env bash
# Libri2Mix or Libri3Mix: from LibriSpeech, WHAM! and the published lists to a page of results.
#
#   recipes/librimix/run.sh --data DATA [KEY=VALUE …]
#     --stage 1 --stop-stage 5     1 prepare, 2 train, 3 average, 4 evaluate, 5 report
#     --speakers 2|3               Libri2Mix or Libri3Mix
#     --train 100|360              training set: train-100 or train-360
#     --condition clean|both       mix_clean, or mix_both with the noise of WHAM!
#     --system NAME                one of the YAML files here: bsrnn_tfmap, bsrnn, td_speakerbeam, spexplus
#     --exp DIR                    folder of the experiment; by default exp/libri<N>mix_<train>_<condition>_<system>
#     --devices N --jobs N         GPUs to train on; processes that render
#     --smoke                      a tiny network and a few steps, to check that everything is in place
#
# KEY=VALUE overrides a key of the training, such as optim.lr=0.0005. Repeat the command to resume an interrupted stage.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../options.sh"

data= exp= stage=1 stop_stage=5 speakers=2 train=100 condition=clean system=bsrnn_tfmap devices=1 jobs= smoke=false
options="data exp stage stop_stage speakers train condition system devices jobs smoke"
read_options "$@"
one_of train 100 360
source "$here/render.sh"

metrics=si_sdr,sdr,pesq,estoi best=5
if $smoke; then system=smoke metrics=si_sdr best=2; fi
needs "$here/$system.yaml" "--system takes the name of a YAML file in $here"
exp=${exp:-exp/libri${speakers}mix_${train}_${condition}_$system}
case $speakers-$train in 2-100) size=13900 ;; 2-360) size=50800 ;; 3-100) size=9300 ;; 3-360) size=33900 ;; esac

if at_stage 1 "prepare: render $mixtures/{train-$train,dev,test}"; then
  need_maps
  render "train-$train" "train-clean-$train"
  render dev dev-clean
  render test test-clean
fi

if at_stage 2 "train: $exp"; then
  train "$here/$system.yaml" "experiment=$exp" "data.root=$data" \
    "data.mixtures.lists=[$mixtures/train-$train]" "data.mixtures.condition=$wesep_condition" \
    "train.epoch_size=$size" \
    "validation.trials=$mixtures/dev" "validation.enrollment=$maps/dev/map_mixture2enrollment$suffix" \
    "validation.condition=$wesep_condition"
fi

average_evaluate_report
