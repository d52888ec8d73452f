# Sourced by the scripts beside it: `--data DIR -o DIR [--count N] [--jobs N] [KEY=VALUE…]` as data, out, count, jobs, keys.
data='' out='' count='' jobs=$(nproc) keys=()
while [ $# -gt 0 ]; do
  case $1 in
    --data) data=$(realpath "$2"); shift 2 ;;
    -o) mkdir -p "$2"; out=$(realpath "$2"); shift 2 ;;
    --count) count=$2; shift 2 ;;
    --jobs) jobs=$2; shift 2 ;;
    *=*) keys+=("$1"); shift ;;
    *) echo "$0: $1 is not an option; give --data DIR -o DIR [--count N] [--jobs N] [KEY=VALUE…]" >&2; exit 2 ;;
  esac
done
if [ -z "$data" ] || [ -z "$out" ]; then
  echo "$0: --data and -o are needed: where the recordings are, and the folder to write" >&2
  exit 2
fi

# manifest NAME KIND FOLDER: the manifest of a corpus below $data, once.
manifest() {
  mkdir -p "$out/manifests"
  [ -e "$out/manifests/$1.jsonl" ] || wesep prepare "$2" "$data/$3" --root "$data" -o "$out/manifests/$1.jsonl"
}

# mixtures YAML MANIFEST NOISE COUNT FOLDER [KEY=VALUE…]: render a corpus; keys of the user come last, and win.
mixtures() {
  local yaml=$1 speech=$2 noise=$3 number=${count:-$4} folder=$out/$5
  shift 5
  mkdir -p "$(dirname "$folder")"
  wesep simulate "$here/$yaml" root="$data" speech="[$out/manifests/$speech.jsonl]" noise="[$noise]" "$@" \
    "${keys[@]}" -o "$folder" --count "$number" --jobs "$jobs"
}
