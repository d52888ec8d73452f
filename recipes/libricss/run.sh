#!/usr/bin/env bash
# LibriCSS: from the downloaded corpus to pages of results, by windows and by utterances.
#
#   recipes/libricss/run.sh --data DATA
#     --stage 1 --stop-stage 3     1 prepare, 2 evaluate, 3 report
#     --sessions N,N,…             numbers of the sessions; by default all, 0 to 9
#     --window S --windows N       longest window; N windows of each session, spread over it; by default all
#     --model NAME                 a model: installed, a checkpoint or an experiment; by default the bundled one
#     --exp DIR                    folder of lists and results; by default exp/libricss
#     --vad MODULE:FUNCTION        finds speech in the estimates; by default by energy
#     --recogniser MODULE:FUNCTION --speaker-model NAME   for word error rate and similarity
#     --mos                        DNSMOS, which needs wesep-py[mos]
#     --smoke                      the first trials only, to check that everything is in place
#
# The utterances are evaluated only with a recogniser: their published figures are word error rates.
# Repeat the command to resume an interrupted stage.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../options.sh"
source "$here/../recordings.sh"

data= exp= stage=1 stop_stage=3 sessions= window=30 windows= model= vad= mos=false smoke=false
recogniser= speaker_model=
options="data exp stage stop_stage sessions window windows model vad mos smoke recogniser speaker_model"
read_options "$@"
no_training
exp=${exp:-exp/libricss}

if at_stage 1 "prepare: windows and utterances in $exp/lists"; then
  needs "$data/for_release" "get for_release.zip, see https://github.com/chenzhuo1011/libri_css (and README.md)"
  mkdir -p "$exp/lists"
  [[ -f $exp/lists/windows/recordings.csv ]] ||
    wesep prepare libricss "$data/for_release" ${sessions:+--sessions "$sessions"} --window "$window" \
      ${windows:+--windows "$windows"} -o "$exp/lists/windows"
  [[ -f $exp/lists/utterances/recordings.csv ]] ||
    wesep prepare libricss "$data/for_release" ${sessions:+--sessions "$sessions"} --unit utterance --no-absent \
      -o "$exp/lists/utterances"
fi

if at_stage 2 "evaluate: by condition, 0S to OV40"; then
  evaluate_recordings "$exp/lists/windows" "$exp/results/windows" "$recogniser" "$speaker_model" --baseline
  [[ -z $recogniser ]] ||
    evaluate_recordings "$exp/lists/utterances" "$exp/results/utterances" "$recogniser" "$speaker_model" --baseline
fi

if at_stage 3 "report"; then
  report_all "$exp/results"
fi
