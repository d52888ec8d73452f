# What the recipes' run.sh share: options, stages, and one line where something is missing. Sourced by them.
#
# A variable that is named in `options` is set by --its-name VALUE, or, where it is `false`, by --its-name alone.
# What stop_stage is before is the last stage. KEY=VALUE is kept in `overrides`, for wesep train.

die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

read_options() {
  local last_stage=$stop_stage
  overrides=()
  while (($#)); do
    case $1 in
      -h | --help)
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
      --*)
        local name=${1#--}
        name=${name//-/_}
        [[ " $options " == *" $name "* ]] || die "unknown option $1; there are: ${options//_/-} (each after --)"
        if [[ ${!name} == false ]]; then
          printf -v "$name" true
          shift
        else
          (($# > 1)) || die "$1 needs a value"
          printf -v "$name" %s "$2"
          shift 2
        fi
        ;;
      *=*)
        overrides+=("$1")
        shift
        ;;
      *) die "$1: is neither an option nor KEY=VALUE; --help lists the options" ;;
    esac
  done
  [[ -n $data ]] || die "--data DIR is needed: the folder that the corpora lie in (see README.md)"
  [[ -d $data ]] || die "--data $data: no such folder"
  data=$(cd "$data" && pwd)
  command -v wesep >/dev/null || die "the command wesep is not on the PATH; install the package, or activate its environment"
  [[ $stage =~ ^[1-$last_stage]$ && $stop_stage =~ ^[1-$last_stage]$ ]] || die "--stage and --stop-stage: are 1 to $last_stage"
}

# Whether stage $1 is to be run; says what it does ($2).
at_stage() {
  ((stage <= $1 && $1 <= stop_stage)) || return 1
  echo "== stage $1: $2" >&2
}

# $1 has to be one of $2…
one_of() {
  local name=$1 choice
  shift
  for choice in "$@"; do [[ ${!name} == "$choice" ]] && return; done
  die "--${name//_/-} ${!name}: give one of $*"
}

# The file or folder $1 has to be there; $2 says how it comes there.
needs() {
  [[ -e $1 ]] || die "$1: is not there; $2"
}

# wesep train, in as many processes as --devices says.
train() {
  local -a command=(wesep train)
  ((devices == 1)) || command=(torchrun --standalone --nproc-per-node "$devices" -m wesep_py.cli.train)
  "${command[@]}" "$@" ${overrides[@]+"${overrides[@]}"}
}
