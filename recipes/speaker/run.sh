#!/usr/bin/env bash
# Speaker encoders: from the recordings to equal error rates.
#
#   recipes/speaker/run.sh --data DATA [KEY=VALUE …]
#     --stage 1 --stop-stage 4     1 prepare, 2 train, 3 average, 4 verify
#     --system NAME                one of the YAML files here: ecapa, resnet, resnet_basis, xvector, recursive
#     --work DIR                   folder for the output of stage 1; by default DATA/speechocean762_lists
#     --exp DIR                    folder of the experiment; by default exp/<system>
#     --devices N                  number of training processes
#     --smoke                      a tiny network and a few steps, to check that everything is in place
#
# DATA: see recipes/speechocean762/run.sh. KEY=VALUE overrides a key of the training, such as optim.lr=0.0005.
# Repeat the command to resume an interrupted stage.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../options.sh"

data= work= exp= stage=1 stop_stage=4 system=ecapa devices=1 smoke=false
options="data work exp stage stop_stage system devices smoke"
read_options "$@"

if $smoke; then system=smoke; fi
needs "$here/$system.yaml" "--system takes the name of a YAML file in $here"
exp=${exp:-exp/$system}
source "$here/../speechocean762/lists.sh"

if at_stage 1 "prepare: manifests"; then
  need_manifests
fi

if at_stage 2 "train: $exp"; then
  train "$here/$system.yaml" "experiment=$exp" "data.root=$root" "data.train=[$train]" \
    "data.noise=[$data/noise/train]" "data.packed=$exp/packed" "validation.manifest=$dev"
fi

if at_stage 3 "average: the 2 last snapshots"; then
  wesep average "$exp" --last 2 -o "$exp/checkpoints/last2" --overwrite
fi

if at_stage 4 "verify: all pairs of recordings, of speakers who are not in the training data"; then
  wesep verify "$dev" --root "$root" --model "$exp/checkpoints/last2" -o "$exp/results/dev" --overwrite
fi
