# shellcheck shell=bash
# Progress lines, sentences for failures and the cache folder: what the commands under hack/ share.
# Sourced. Progress goes to standard error, so that standard output holds results alone; the
# output of the programs that a step runs goes to a log, whose end is shown when the step fails.

cache="${XDG_CACHE_HOME:-$HOME/.cache}/kestrel"
export CARGO_TARGET_DIR="$cache/target"
log="$cache/log/$(basename "$0").log"
log_open=''
step_text=''

exec 3>&2
trap explain_failure EXIT
trap 'exit 130' INT TERM

# say SENTENCE: one line for the person who watches.
say() { printf '%s\n' "$*" >&3; }

# fail SENTENCE: says what is wrong and what to do, and ends with code 1.
fail() {
  [[ -z $step_text ]] || say 'failed'
  step_text=''
  say "$(basename "$0"): $*"
  exit 1
}

# step TEXT COMMAND…: runs COMMAND and says what it does and the seconds it took. Never call it as
# a condition: bash would go on after errors inside COMMAND.
step() {
  [[ -n $log_open ]] || { mkdir -p "${log%/*}" && : >"$log" && log_open=yes; }
  step_text=$1
  shift
  local start=$EPOCHREALTIME
  printf '%-60s ' "$step_text" >&3
  "$@" >>"$log" 2>&1
  step_text=''
  say "$(seconds_since "$start") s"
}

# cargo: checkouts share what is built. Cargo asks whether a source is newer than what was made of it, not whether
# it is the same: after another checkout has built, all sources of this one are made new.
cargo() {
  local here built="$CARGO_TARGET_DIR/checkout"
  here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
  if [[ $(cat "$built" 2>/dev/null) != "$here" ]]; then
    find "$here" -path "$here/.git" -prune -o -type f -exec touch -c {} +
    mkdir -p "$CARGO_TARGET_DIR"
    printf '%s\n' "$here" >"$built"
  fi
  command cargo "$@"
}

# seconds_since START: the seconds from START (a value of EPOCHREALTIME) until now.
seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%6.1f", b - a }'; }

# wait_for SECONDS COMMAND…: repeats COMMAND until it succeeds; false after SECONDS.
wait_for() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

# explain_failure: at the exit inside a step, the end of the log.
explain_failure() {
  local code=$?
  [[ -n $step_text ]] || return 0
  say 'failed'
  tail -n 20 "$log" >&3
  say "$(basename "$0"): this step failed with code $code; its whole output is in $log"
}
