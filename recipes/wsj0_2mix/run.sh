#!/usr/bin/env bash
# WSJ0-2mix: from the rendered mixtures, WSJ0 and SpEx's lists of enrollments to a page of results.
#
#   recipes/wsj0_2mix/run.sh --data DATA [KEY=VALUE …]
#     --stage 1 --stop-stage 5     1 prepare, 2 train, 3 average, 4 evaluate, 5 report
#     --mode min|max               variant of the mixtures, for training and evaluation
#     --system NAME                one of the YAML files here: spexplus, td_speakerbeam, bsrnn_tfmap, usef_tfgridnet
#     --exp DIR                    folder of the experiment; by default exp/wsj0_2mix_<mode>_<system>
#     --devices N                  GPUs to train on
#     --own-enrollments            draw enrollments if SpEx's lists are missing; results are then not comparable
#                                  with published ones
#     --smoke                      a tiny network and a few steps, to check that everything is in place
#
# KEY=VALUE overrides a key of the training, such as optim.lr=0.0005. Repeat the command to resume an interrupted stage.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../options.sh"

data= exp= stage=1 stop_stage=5 mode=min system=spexplus devices=1 own_enrollments=false smoke=false
options="data exp stage stop_stage mode system devices own_enrollments smoke"
read_options "$@"
one_of mode min max

metrics=si_sdr,sdr,pesq,estoi best=5
if $smoke; then system=smoke metrics=si_sdr best=2; fi
needs "$here/$system.yaml" "--system takes the name of a YAML file in $here"
exp=${exp:-exp/wsj0_2mix_${mode}_$system}
mixtures=2speakers/wav8k/$mode
lists=wsj0_2mix_lists/$mode

if at_stage 1 "prepare: lists of mixtures and enrollments in $data/$lists"; then
  needs "$data/wsj0" "get LDC93S6A, https://catalog.ldc.upenn.edu/LDC93S6A, and convert it to wav (see README.md)"
  mkdir -p "$data/$lists"
  [[ -f $data/$lists/si_tr_s.jsonl ]] ||
    wesep prepare wsj0mix "$data/wsj0/si_tr_s" --root "$data" -o "$data/$lists/si_tr_s.jsonl"
  for set in tr cv tt; do
    [[ ! -f $data/$lists/$set.csv ]] || continue
    needs "$data/$mixtures/$set/mix" "render WSJ0-2mix with its scripts (see README.md)"
    from=()
    aux=$data/SpEx_Plus/data/wsj0_2mix/$set/aux.scp
    [[ ! -f $data/mix_2_spk_$set.txt ]] || from+=(--list "$data/mix_2_spk_$set.txt")
    if [[ $set != tr ]]; then
      from+=(--wsj0 "$data/wsj0")
      $own_enrollments || needs "$aux" "run: git clone https://github.com/gemengtju/SpEx_Plus $data/SpEx_Plus"
      [[ ! -f $aux ]] || from+=(--enrollment "$aux")
    fi
    wesep prepare wsj0mix-trials "$data/$mixtures/$set" ${from[@]+"${from[@]}"} -o "$data/$lists/$set.csv"
  done
fi

if at_stage 2 "train: $exp"; then
  train "$here/$system.yaml" "experiment=$exp" "data.root=$data" \
    "data.mixtures.lists=[$lists/tr.csv]" "data.train=[$lists/si_tr_s.jsonl]" \
    "validation.trials=$lists/cv.csv" "validation.enrollment=$lists/cv.map_mixture2enrollment"
fi

if at_stage 3 "average: the $best best snapshots"; then
  wesep average "$exp" --best "$best" -o "$exp/checkpoints/best$best" --overwrite
fi

if at_stage 4 "evaluate: tt"; then
  wesep evaluate --model "$exp/checkpoints/best$best" --trials "$data/$lists/tt.csv" \
    --enrollment "$data/$lists/tt.map_mixture2enrollment" --metrics "$metrics" --save-extremes 5 -o "$exp/results/tt"
fi

if at_stage 5 "report"; then
  wesep report "$exp/results/tt" --overwrite
fi
