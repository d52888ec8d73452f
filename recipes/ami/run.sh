#!/usr/bin/env bash
# The AMI meetings: from the downloaded corpus to a page of results.
#
#   recipes/ami/run.sh --data DATA
#     --stage 1 --stop-stage 3     1 prepare, 2 evaluate, 3 report
#     --part dev|test              meetings of the partition Full-corpus-ASR
#     --meetings NAME,NAME,…       these meetings, in place of a part
#     --mic Mix-Headset|Array1-01  the sum of the headsets, or a microphone on the table
#     --rttm DIR                   activity by the RTTM files of AMI-diarization-setup; by default by the words' times
#     --window S --windows N       longest window; N windows of each meeting, spread over it; by default all
#     --model NAME                 a model: installed, a checkpoint or an experiment; by default the bundled one
#     --exp DIR                    folder of lists and results; by default exp/ami_<part>_<mic>
#     --vad MODULE:FUNCTION        finds speech in the estimates; by default by energy
#     --recogniser MODULE:FUNCTION --speaker-model NAME   for word error rate and similarity
#     --mos                        DNSMOS, which needs wesep-py[mos]
#     --smoke                      the first trials only, to check that everything is in place
#
# Repeat the command to resume an interrupted stage.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../options.sh"
source "$here/../recordings.sh"

data= exp= stage=1 stop_stage=3 part=test meetings= mic=Mix-Headset rttm= window=30 windows= model= vad= mos=false smoke=false
recogniser= speaker_model=
options="data exp stage stop_stage part meetings mic rttm window windows model vad mos smoke recogniser speaker_model"
read_options "$@"
no_training
one_of part dev test
one_of mic Mix-Headset Array1-01
exp=${exp:-exp/ami_${part}_$mic}

if at_stage 1 "prepare: windows, targets and enrollments in $exp/list"; then
  needs "$data/amicorpus" "get the recordings from https://groups.inf.ed.ac.uk/ami/download (see README.md)"
  needs "$data/ami_public_manual_1.6.2" "get the annotations from https://groups.inf.ed.ac.uk/ami/download"
  mkdir -p "$exp"
  [[ -f $exp/list/recordings.csv ]] ||
    wesep prepare ami "$data" --part "$part" ${meetings:+--meetings "$meetings"} --mic "$mic" ${rttm:+--rttm "$rttm"} \
      --window "$window" ${windows:+--windows "$windows"} -o "$exp/list"
fi

if at_stage 2 "evaluate"; then
  evaluate_recordings "$exp/list" "$exp/results/windows" "$recogniser" "$speaker_model" --baseline
fi

if at_stage 3 "report"; then
  report_all "$exp/results"
fi
