# Paths of the manifests of speechocean762. run.sh of this recipe and of recipes/speaker source it after options.sh.
#
# Reads data and work; sets root (the folder that paths in the manifests start from), train and dev.

work=${work:-$data/speechocean762_lists}
root=$data train=$data/speech/train.csv dev=$data/speech/dev.csv
[[ $work == /* ]] || work=$PWD/$work
if [[ ! -f $train ]]; then root=$data/speechocean762 train=$work/train.csv dev=$work/dev.csv; fi

# Write the manifests that are missing, from the downloaded corpus.
need_manifests() {
  [[ -f $train && -f $dev ]] && return
  needs "$root/train" "get speechocean762, https://www.openslr.org/101, or provide speech/train.csv and speech/dev.csv"
  mkdir -p "$work"
  [[ -f $train ]] || wesep prepare kaldi "$root/train" --root "$root" -o "$train"
  [[ -f $dev ]] || wesep prepare kaldi "$root/test" --root "$root" -o "$dev"
}
