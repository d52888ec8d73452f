# Options, stages and error messages that the recipes' run.sh share. They source this file.
#
# `options` names variables. The option --its-name VALUE sets a variable; one whose value is `false` is set to `true` by
# --its-name alone. The initial value of stop_stage is the number of stages. KEY=VALUE is stored in `overrides`, for
# wesep train.

# Print a message ($*) and exit with status 1.
die() {
  echo "${0##*/}: $*" >&2
  exit 1
}

# Read the command line ("$@").
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
        [[ " $options " == *" $name "* ]] || die "unknown option $1; the options are ${options//_/-} (each after --)"
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
      *) die "$1 is neither an option nor KEY=VALUE; --help lists the options" ;;
    esac
  done
  [[ -n $data ]] || die "--data is missing; give the folder of the corpora, --data DIR (see README.md)"
  [[ -d $data ]] || die "--data $data: no such folder; give the folder of the corpora"
  data=$(cd "$data" && pwd)
  command -v wesep >/dev/null || die "the command wesep is not in the PATH; install the package, or activate its environment"
  [[ $stage =~ ^[1-$last_stage]$ && $stop_stage =~ ^[1-$last_stage]$ ]] || die "--stage $stage --stop-stage $stop_stage: give numbers from 1 to $last_stage"
}

# True if stage $1 is to be run; prints its description ($2).
at_stage() {
  ((stage <= $1 && $1 <= stop_stage)) || return 1
  echo "== stage $1: $2" >&2
}

# Check that the variable $1 has one of the values $2…
one_of() {
  local name=$1 choice
  shift
  for choice in "$@"; do [[ ${!name} == "$choice" ]] && return; done
  die "--${name//_/-} ${!name}: give one of $*"
}

# Check that the file or folder $1 exists; $2 says how to get it.
needs() {
  [[ -e $1 ]] || die "$1 is missing; $2"
}

# Run wesep train in --devices processes.
train() {
  local -a command=(wesep train)
  ((devices == 1)) || command=(torchrun --standalone --nproc-per-node "$devices" -m wesep_py.cli.train)
  "${command[@]}" "$@" ${overrides[@]+"${overrides[@]}"}
}
