#!/usr/bin/env bash
# A corpus like WHAMR!, in its four versions and sizes: OUT/wav{8k,16k}/{min,max}/{tr,cv,tt}.
#
#   bash simulation/make_whamr_like.sh --data DATA -o OUT [--count N] [--jobs N] [KEY=VALUE…]
#
# DATA contains wsj0/{si_tr_s,si_dt_05,si_et_05} as wav, one folder per speaker, and wham_noise/{tr,cv,tt}. As in wsj0-2mix, tr
# and cv have the same speakers, and tt has others.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/options.sh"

for set in si_tr_s si_dt_05 si_et_05; do manifest "$set" folder "wsj0/$set"; done
[ -e "$out/manifests/tt.jsonl" ] || cat "$out"/manifests/si_{dt,et}_05.jsonl > "$out/manifests/tt.jsonl"
for rate in 8 16; do
  for mode in min:full max:longest; do
    for split in tr:si_tr_s:20000:0 cv:si_tr_s:5000:1 tt:tt:3000:2; do
      IFS=: read -r name speech number seed <<< "$split"
      mixtures whamr_like.yaml "$speech" "wham_noise/$name" "$number" "wav${rate}k/${mode%:*}/$name" \
        sample_rate=${rate}000 simulation.overlap="${mode#*:}" seed="$seed"
    done
  done
done
