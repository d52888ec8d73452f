#!/usr/bin/env bash
# REAL-T, the data of the REAL-TSE challenge: from the downloaded set to pages of results, by the challenge's measures.
#
#   recipes/real_t/run.sh --data DATA
#     --stage 1 --stop-stage 3     1 prepare, 2 evaluate, 3 report
#     --set dev|eval1|eval2        the folder DATA/REAL-T-dev, …
#     --model NAME                 a model: installed, a checkpoint or an experiment; by default the bundled one
#     --exp DIR                    folder of lists and results; by default exp/real_t_<set>
#     --vad MODULE:FUNCTION        finds speech in the estimates; the challenge uses FireRedVAD; by default by energy
#     --recogniser-en, --recogniser-zh MODULE:FUNCTION    recognisers of the two languages
#     --speaker-model-en, --speaker-model-zh NAME         speaker encoders of the two languages
#     --mos                        DNSMOS, which needs wesep-py[mos]
#     --smoke                      the first trials only, to check that everything is in place
#
# Repeat the command to resume an interrupted stage.

set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source "$here/../options.sh"
source "$here/../recordings.sh"

data= exp= stage=1 stop_stage=3 set=dev model= vad= mos=false smoke=false
recogniser_en= recogniser_zh= speaker_model_en= speaker_model_zh=
options="data exp stage stop_stage set model vad mos smoke recogniser_en recogniser_zh speaker_model_en speaker_model_zh"
read_options "$@"
no_training
one_of set dev eval1 eval2
exp=${exp:-exp/real_t_$set}
corpus=$data/REAL-T-$set

if at_stage 1 "prepare: lists of English and Mandarin in $exp/lists"; then
  needs "$corpus" "get it from https://huggingface.co/datasets/REAL-TSE/REAL-T (see README.md)"
  mkdir -p "$exp/lists"
  for language in en zh; do
    [[ -f $exp/lists/$language/recordings.csv ]] ||
      wesep prepare real_t "$corpus" --language "$language" -o "$exp/lists/$language"
  done
fi

if at_stage 2 "evaluate: by the definitions of the challenge"; then
  for language in en zh; do
    recogniser=recogniser_$language speaker_model=speaker_model_$language
    evaluate_recordings "$exp/lists/$language" "$exp/results/$language" "${!recogniser}" "${!speaker_model}" \
      --protocol real_tse --baseline
  done
fi

if at_stage 3 "report"; then
  report_all "$exp/results"
fi
