#!/usr/bin/env bash
# Speaker encoders: from the recordings to equal error rates.
#
#   recipes/speaker/run.sh --data DATA [KEY=VALUE …]
#     --stage 1 --stop-stage 4     1 prepare, 2 train, 3 average, 4 verify
#     --system NAME                NAME.yaml beside this script: ecapa, resnet, resnet_basis, xvector, recursive
#     --work DIR                   what stage 1 makes; by default DATA/speechocean762_lists
#     --exp DIR                    the experiment; by default exp/<system>
#     --devices N                  processes to train in
#     --smoke                      a tiny network, a few steps: to see that everything is in its place
#
# DATA as for recipes/speechocean762/run.sh. KEY=VALUE goes to wesep train: optim.lr=0.0005. Each stage goes on where it
# was interrupted.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../options.sh"

data= work= exp= stage=1 stop_stage=4 system=ecapa devices=1 smoke=false
options="data work exp stage stop_stage system devices smoke"
read_options "$@"

if $smoke; then system=smoke; fi
needs "$here/$system.yaml" "--system is the name of a YAML in $here"
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

if at_stage 4 "verify: every pair of recordings of speakers that were not trained on"; then
  wesep verify "$dev" --root "$root" --model "$exp/checkpoints/last2" -o "$exp/results/dev" --overwrite
fi
