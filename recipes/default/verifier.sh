#!/usr/bin/env bash
# The presence verifier of a model: measure its evidence on present and absent targets, fit it, and print the tables.
#
#   recipes/default/verifier.sh --data DATA --model MODEL [KEY=VALUE …]
#     --model MODEL                name or folder of the model; the fit is written into its provenance.json
#     --encoder NAME               speaker encoder: an installed one (wesep models pull dvector), or a folder
#     --exp DIR                    folder of the results; by default exp/verifier
#     --fit-on LIST                trials/LIST.csv with its map, and LIST_absent; by default dev_2mix
#     --check-on LIST              list on which the fit is checked; by default dev_ls_2mix
#     --limit N                    trials of each list, of each kind and condition; by default 100
#     --shifts N                   shifted copies that each extraction averages; by default 1
#     --stage 1 --stop-stage 2     1 evaluate, 2 fit
#
# DATA holds speech/, noise/ and trials/ (see README.md). Repeat the command to resume it. Results of another model are
# refused: give another --exp, or remove the folder.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../options.sh"

data= model= exp=exp/verifier encoder=dvector stage=1 stop_stage=2 fit_on=dev_2mix check_on=dev_ls_2mix limit=100 shifts=1
options="data model exp encoder stage stop_stage fit_on check_on limit shifts"
read_options "$@"
[[ -n $model ]] || die "--model is missing; give the name or the folder of the model"
for list in "$fit_on" "$check_on"; do
  needs "$data/trials/${list}_absent.map_mixture2enrollment" "the verifier needs such a list"
done

if at_stage 1 "evaluate $model on $fit_on and $check_on, with present and absent targets, clean and noisy"; then
  for list in "$fit_on" "$check_on"; do
    for name in "$list" "${list}_absent"; do
      for condition in clean noisy; do
        if [[ -f $exp/$name/$condition/summary.json ]]; then continue; fi
        wesep evaluate --model "$model" --verify "$encoder" --trials "$data/trials/$list.csv" --root "$data" \
          --enrollment "$data/trials/$name.map_mixture2enrollment" --condition "$condition" --limit "$limit" \
          --shifts "$shifts" -o "$exp/$name/$condition"
      done
    done
  done
fi

if at_stage 2 "fit the verifier on $fit_on, check it on $check_on"; then
  results() { echo "$exp/$1/clean" "$exp/$1_absent/clean" "$exp/$1/noisy" "$exp/$1_absent/noisy"; }
  read -ra fitted <<<"$(results "$fit_on")"
  read -ra checked <<<"$(results "$check_on")"
  wesep calibrate "${fitted[@]}" "${checked[@]/#/--check=}" --model "$model" --verify "$encoder"
fi
