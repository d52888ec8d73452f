#!/usr/bin/env bash
# Conversations in rooms and noise, with train, dev and test: OUT/{train,dev,test}.
#
#   bash simulation/make_conversation_like.sh --data DATA -o OUT [--count N] [--jobs N] [KEY=VALUE…]
#
# DATA contains LibriSpeech/{train-clean-100,dev-clean,test-clean} and wham_noise/{tr,cv,tt}.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/options.sh"

for split in train:train-clean-100:tr:20000 dev:dev-clean:cv:1000 test:test-clean:tt:1000; do
  IFS=: read -r name speech noise number <<< "$split"
  manifest "$name" librispeech "LibriSpeech/$speech"
  mixtures conversation_like.yaml "$name" "wham_noise/$noise" "$number" "$name"
done
