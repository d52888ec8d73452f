#!/usr/bin/env bash
# A speaker encoder, from the recordings to its equal error rate.
#
#   bash recipes/speaker/run.sh --data DATA -o OUT [--recipe ecapa] [--stage N] [--stop-stage N] [--devices N] [--smoke]
#     [KEY=VALUE…]
#
# Stages: 1 manifests, 2 train, 3 average, 4 verify. --recipe is the name of a YAML file beside this script; DATA is as for
# recipes/speechocean762/run.sh. KEY=VALUE changes the recipe; --smoke goes through all stages with next to no work in each.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
stage=1 stop_stage=4 data='' out='' smoke='' devices=1 recipe=ecapa keys=()
while [ $# -gt 0 ]; do
  case $1 in
    --data) data=$(realpath "$2"); shift 2 ;;
    -o) mkdir -p "$2"; out=$(realpath "$2"); shift 2 ;;
    --recipe) recipe=$2; shift 2 ;;
    --stage) stage=$2; shift 2 ;;
    --stop-stage) stop_stage=$2; shift 2 ;;
    --devices) devices=$2; shift 2 ;;
    --smoke) smoke=1; shift ;;
    *=*) keys+=("$1"); shift ;;
    *) echo "$0: $1 is no option; see the head of this file" >&2; exit 2 ;;
  esac
done
[ -n "$data" ] && [ -n "$out" ] || { echo "$0: --data and -o are needed" >&2; exit 2; }

config=$here/$recipe.yaml exp=$out/exp/$recipe results=$out/results/$recipe
if [ -n "$smoke" ]; then config=$here/smoke.yaml; fi
root=$data train=$data/speech/train.csv dev=$data/speech/dev.csv
if [ ! -e "$train" ]; then root=$data/speechocean762 train=$out/data/train.csv dev=$out/data/dev.csv; fi
runs() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ] && echo "stage $1: $2"; }

if runs 1 "manifests"; then
  bash "$here/../speechocean762/run.sh" --data "$data" -o "$out" --stage 1 --stop-stage 1
fi

if runs 2 "train"; then
  wesep_train=(wesep train)
  if [ "$devices" -gt 1 ]; then wesep_train=(torchrun --nproc-per-node "$devices" -m wesep_py.cli.train); fi
  "${wesep_train[@]}" "$config" experiment="$exp" data.root="$root" data.train="[$train]" data.noise="[$data/noise/train]" \
    data.packed="$out/data/packed_speeds" validation.manifest="$dev" "${keys[@]}"
fi

if runs 3 "average"; then
  wesep average "$exp" --last 2 -o "$exp/average" --overwrite
fi

if runs 4 "verify"; then
  mkdir -p "$out/results"
  wesep verify "$dev" --root "$root" --model "$exp/average" -o "$results" --overwrite
fi
