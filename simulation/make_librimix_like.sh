#!/usr/bin/env bash
# Corpora like Libri2Mix and Libri3Mix, one with one to four speakers, and a reverberant Libri2Mix, each with train, dev
# and test in LibriMix's sizes; clean (mix_clean) and noisy (mix_both). The mixtures are not those of LibriMix itself.
#
#   bash simulation/make_librimix_like.sh --data DATA -o OUT [--count N] [--jobs N] [KEY=VALUE…]
#
# DATA contains LibriSpeech/{train-clean-100,dev-clean,test-clean} and wham_noise/{tr,cv,tt}.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/options.sh"

for split in train:train-clean-100:tr:13900 dev:dev-clean:cv:3000 test:test-clean:tt:3000; do
  IFS=: read -r name speech noise number <<< "$split"
  manifest "$name" librispeech "LibriSpeech/$speech"
  for corpus in Libri2Mix:librimix_like Libri3Mix:libri3mix_like LibriNMix:librinmix_like \
    Libri2MixR:librimix_reverberant; do
    mixtures "${corpus#*:}.yaml" "$name" "wham_noise/$noise" "$number" "${corpus%:*}/$name"
  done
done
