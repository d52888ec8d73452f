# LibriMix from its published lists. run.sh of this recipe and of librimix_online source it after options.sh.
#
# Reads data, speakers, condition and jobs, and in the last stages exp, best and metrics; sets mixtures, maps, suffix,
# types and wesep_condition.

one_of speakers 2 3
one_of condition clean both

mixtures=Libri${speakers}Mix/wav16k/min
maps=speakerbeam/egs/libri2mix/data/wav8k/min
case $speakers in 2) suffix= ;; 3) suffix=_3spk ;; esac
case $condition in
  clean) types=mix_clean wesep_condition=clean ;;
  both) types=mix_clean,mix_both wesep_condition=noisy ;;
esac

# Render a set of LibriMix ($1: train-100) from a set of LibriSpeech ($2: train-clean-100).
render() {
  local csv=$data/LibriMix/metadata/Libri${speakers}Mix/libri${speakers}mix_$2.csv
  [[ ! -f $data/$mixtures/metadata/mixture_$1_mix_$condition.csv ]] || return 0
  needs "$csv" "run: git clone https://github.com/JorisCos/LibriMix $data/LibriMix"
  needs "$data/LibriSpeech/$2" "get this part of LibriSpeech, https://www.openslr.org/12"
  [[ $condition == clean ]] || needs "$data/wham_noise" "get the noise of WHAM!, http://wham.whisper.ai"
  wesep render "$csv" --root "$data/LibriSpeech" --noise-root "$data/wham_noise" --types "$types" \
    -o "$data/$mixtures/$1" ${jobs:+--jobs "$jobs"}
}

# Check that SpeakerBeam's lists of enrollments exist.
need_maps() {
  local part
  for part in dev test; do
    needs "$data/$maps/$part/map_mixture2enrollment$suffix" \
      "run: git clone https://github.com/BUTSpeechFIT/speakerbeam $data/speakerbeam"
  done
}

# Run stages 3 to 5.
average_evaluate_report() {
  if at_stage 3 "average: the $best best snapshots"; then
    wesep average "$exp" --best "$best" -o "$exp/checkpoints/best$best" --overwrite
  fi

  if at_stage 4 "evaluate: test-clean, SpeakerBeam's list"; then
    wesep evaluate --model "$exp/checkpoints/best$best" --trials "$data/$mixtures/test" \
      --enrollment "$data/$maps/test/map_mixture2enrollment$suffix" --condition "$wesep_condition" \
      --metrics "$metrics" --save-extremes 5 -o "$exp/results/test"
  fi

  if at_stage 5 "report"; then
    wesep report "$exp/results/test" --overwrite
  fi
}
