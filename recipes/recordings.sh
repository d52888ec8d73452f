# Evaluation of recordings without references. The run.sh of real_t, ami and libricss source it after options.sh.
#
# Reads model, vad, mos and smoke.

# Check the command line: there is no training that KEY=VALUE could be of.
no_training() {
  ((${#overrides[@]} == 0)) || die "${overrides[0]}: nothing is trained here, so there are no keys to set; --help lists the options"
}

# Evaluate the model on a list ($1) that `wesep prepare` wrote, into a folder ($2), with a recogniser ($3) and a speaker
# model ($4), where they are given; further arguments are options of `wesep evaluate`.
evaluate_recordings() {
  local list=$1 results=$2 recogniser=$3 speaker_model=$4
  shift 4
  local -a metrics=() measured=()
  if [[ -f $list/labels.rttm ]]; then
    metrics+=(timing) measured+=(--labels "$list/labels.rttm" ${vad:+--vad "$vad"})
  fi
  if [[ -n $recogniser && -f $list/transcripts.txt ]]; then
    metrics+=(wer) measured+=(--recogniser "$recogniser" --transcripts "$list/transcripts.txt")
  fi
  if [[ -n $speaker_model ]]; then metrics+=(similarity) measured+=(--speaker-model "$speaker_model"); fi
  if $mos; then metrics+=(dnsmos); fi
  ((${#metrics[@]})) || die "$list has no labels.rttm; give a recogniser, a speaker model or --mos, so that something is measured"
  if $smoke; then measured+=(--limit 3 --shifts 1 --jobs 0); fi
  wesep evaluate ${model:+--model "$model"} --trials "$list/recordings.csv" --enrollment "$list/map_mixture2enrollment" \
    --metrics "$(IFS=,; echo "${metrics[*]}")" "${measured[@]}" "$@" -o "$results"
}

# Make a page of each result below a folder ($1).
report_all() {
  local summary
  for summary in "$1"/*/summary.json; do wesep report "${summary%/*}" --overwrite; done
}
