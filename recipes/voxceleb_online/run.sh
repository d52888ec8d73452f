#!/usr/bin/env bash
# VoxCeleb mixed on the fly, with MUSAN's noise and simulated rooms: from the corpora to pages of results.
#
#   recipes/voxceleb_online/run.sh --data DATA [KEY=VALUE …]
#     --stage 1 --stop-stage 5     1 prepare, 2 train, 3 average, 4 evaluate, 5 report
#     --system NAME                one of the YAML files here: bsrnn, bsrnn_multilevel, bsrnn_tfmap
#     --work DIR                   folder for the output of stage 1; by default DATA/voxceleb_online
#     --exp DIR                    folder of the experiment; by default exp/voxceleb_online_<system>
#     --devices N --jobs N         GPUs to train on; processes that prepare
#     --smoke                      a tiny network and a few steps, to check that everything is in place
#
# KEY=VALUE overrides a key of the training, such as optim.lr=0.0005. Repeat the command to resume an interrupted stage.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../options.sh"

data= work= exp= stage=1 stop_stage=5 system=bsrnn devices=1 jobs=$(getconf _NPROCESSORS_ONLN) smoke=false
options="data work exp stage stop_stage system devices jobs smoke"
read_options "$@"

metrics=si_sdr,sdr,pesq,estoi best=10 extremes=5 dev_trials=200 test_trials=1000 rooms=()
if $smoke; then
  system=smoke metrics=si_sdr best=2 extremes=1 dev_trials=2 test_trials=3
  rooms=(simulated.count=4 simulated.method=fra)
fi
needs "$here/$system.yaml" "--system takes the name of a YAML file in $here"
exp=${exp:-exp/voxceleb_online_$system}
mkdir -p "${work:=$data/voxceleb_online}"
work=$(cd "$work" && pwd)
corpora=(vox1_dev)
[[ ! -d $data/voxceleb2 ]] || corpora+=(vox2_dev)

manifest() { # NAME FOLDER SET
  [[ -f $work/$1.csv ]] || wesep prepare voxceleb "$data/$2" --set "$3" --root "$data" -o "$work/$1.csv"
}

if at_stage 1 "prepare: manifests, shards, noise, rooms and trials in $work"; then
  needs "$data/voxceleb1" "get it from https://www.robots.ox.ac.uk/~vgg/data/voxceleb (see README.md)"
  needs "$data/musan" "get it from https://www.openslr.org/17"
  mkdir -p "$work/shards" "$work/trials"
  manifest vox1_dev voxceleb1 dev
  manifest vox1_test voxceleb1 test
  [[ ! -d $data/voxceleb2 ]] || manifest vox2_dev voxceleb2 dev
  for corpus in "${corpora[@]}"; do
    wesep shard "$work/$corpus.csv" --root "$data" -o "$work/shards/$corpus" --jobs "$jobs"
  done
  [[ -f $work/musan.lmdb ]] || wesep lmdb "$data/musan" --root "$data" -o "$work/musan.lmdb" --jobs "$jobs"
  python "$here/../../simulation/make_room_bank.py" "$here/rooms.yaml" ${rooms[@]+"${rooms[@]}"} \
    -o "$work/rooms" --jobs "$jobs"
  # VoxCeleb1's 40 test speakers: id10270 to id10289 for the validation, id10290 to id10309 for the evaluation.
  for part in "dev 27|28 $dev_trials 0" "test 29|30 $test_trials 1"; do
    read -r name ids count seed <<< "$part"
    { head -n 1 "$work/vox1_test.csv" && grep -E ",id10($ids)[0-9]," "$work/vox1_test.csv"; } > "$work/$name.csv"
    wesep simulate "$here/trials.yaml" "root=$data" "speech=[$work/$name.csv]" "noise=[$work/musan.lmdb]" \
      "seed=$seed" -o "$work/trials/$name" --count "$count" --jobs "$jobs"
  done
fi

if at_stage 2 "train: $exp"; then
  train "$here/$system.yaml" "experiment=$exp" "data.root=$work" \
    "data.train=[$(IFS=,; echo "${corpora[*]/#/shards/}")]" "simulation.room.bank=$work/rooms" \
    "validation.root=$work/trials/dev"
fi

if at_stage 3 "average: the $best best snapshots"; then
  wesep average "$exp" --best "$best" -o "$exp/checkpoints/best$best" --overwrite
fi

evaluate() { # NAME LIST MAP CONDITION [OPTION …]
  local name=$1 list=$2 map=$3 condition=$4
  shift 4
  wesep evaluate --model "$exp/checkpoints/best$best" --trials "$list" --enrollment "$map" --condition "$condition" \
    --metrics "$metrics" --save-extremes "$extremes" -o "$exp/results/$name" "$@"
}
vox1_trials=$work/trials/test libri2mix=$data/Libri2Mix/wav16k/min/test
map=$data/speakerbeam/egs/libri2mix/data/wav8k/min/test/map_mixture2enrollment

if at_stage 4 "evaluate: trials of VoxCeleb1's test speakers; Libri2Mix's test set if it exists"; then
  for condition in clean noisy; do
    evaluate "voxceleb1_$condition" "$vox1_trials/mixture_mix_both.csv" "$vox1_trials/map_mixture2enrollment" \
      "$condition" --root "$vox1_trials" --speakers "$work/test.csv"
  done
  [[ ! -f $map || ! -d $libri2mix ]] || evaluate libri2mix_clean "$libri2mix" "$map" clean
fi

if at_stage 5 "report"; then
  for results in "$exp"/results/*/; do wesep report "$results" --overwrite; done
fi
