# The manifests of this recipe's data; sourced by run.sh of this recipe and of speaker, after options.sh.
#
# Reads data and work; sets root (that paths in the manifests start from), train and dev.

work=${work:-$data/speechocean762_lists}
root=$data train=$data/speech/train.csv dev=$data/speech/dev.csv
[[ $work == /* ]] || work=$PWD/$work
if [[ ! -f $train ]]; then root=$data/speechocean762 train=$work/train.csv dev=$work/dev.csv; fi

# Make them of the corpus as it was downloaded, where they are not there.
need_manifests() {
  [[ -f $train && -f $dev ]] && return
  needs "$root/train" "it is speechocean762, https://www.openslr.org/101 (or give speech/train.csv and speech/dev.csv)"
  mkdir -p "$work"
  [[ -f $train ]] || wesep prepare kaldi "$root/train" --root "$root" -o "$train"
  [[ -f $dev ]] || wesep prepare kaldi "$root/test" --root "$root" -o "$dev"
}
