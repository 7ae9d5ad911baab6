# shellcheck shell=bash
# Units: a node or the control plane, each one process tree in namespaces of its own, with its
# files in $state/UNIT. A unit's programs see the cache at /run/kestrel and $state/UNIT/var as
# /var. What runs is read from the kernel, never from a record that can be stale. Sourced.

# network_of UNIT: the control plane has no network of its own: it must reach the Services, which
# only a node's kube-proxy can translate.
network_of() { if [[ $1 == control-plane ]]; then echo node1; else echo "$1"; fi; }

# units: those that were ever started, one a line.
units() {
  local file
  for file in "$state"/*/pid; do
    [[ ! -e $file ]] || basename "${file%/pid}"
  done
}

# unit_pid UNIT: the process that holds the unit together; false if it does not run.
unit_pid() {
  local pid
  pid=$(cat "$state/$1/pid" 2>/dev/null) || return 1
  # After a restart of the machine the number may belong to another program.
  [[ $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") == "unshare "*"/unit-init $1 $cache " ]] || return 1
  echo "$pid"
}

# unit_init UNIT: pid 1 of the unit, as the host counts.
unit_init() {
  local pid
  pid=$(unit_pid "$1") && pgrep -P "$pid"
}

# in_unit UNIT COMMAND…: runs COMMAND inside the unit.
in_unit() {
  local init
  init=$(unit_init "$1") || return 1
  nsenter -t "$init" --mount --uts --ipc --net --pid --wd=/ "${@:2}"
}

unit_is_ready() { in_unit "$1" test -e /run/ready; }

# start_unit UNIT: starts the unit without any program in it.
start_unit() {
  local unit=$1 var="$state/$1/var"
  mkdir -p "$var/lib" "$var/log" "$var/tmp" "$state/$unit/log"
  ln -sfn /run "$var/run"
  setsid nsenter --net="$state/net/$(network_of "$unit")" \
    unshare --mount --uts --ipc --pid --fork --mount-proc --propagation slave --kill-child \
    "$hack/kubernetes/unit-init" "$unit" "$cache" \
    </dev/null >"$state/$unit/log/init" 2>&1 3>&- 9>&- &
  echo $! >"$state/$unit/pid"
  wait_for 10 unit_is_ready "$unit" || { end_unit "$unit" && fail "$unit does not start: $(tail -n 1 "$state/$unit/log/init")"; }
}

# end_unit UNIT: at once and with everything in it, as a power cut would.
end_unit() {
  local pid
  pid=$(unit_pid "$1") || return 0
  kill -KILL "$pid"
  wait_for 20 unit_is_gone "$1" "$pid" || fail "the processes of $1 do not end"
}

unit_is_gone() { [[ ! -d /proc/$2 ]] && cgroup_is_empty "$cgroup_parent/$1"; }

# program_runs UNIT PROGRAM: the kernel keeps 15 characters of a program's name.
program_runs() {
  local init
  init=$(unit_init "$1") && pgrep --ns "$init" --nslist pid -x "${2:0:15}" >/dev/null
}

# start_program UNIT PROGRAM ARGUMENT…: unless it runs; its output goes to $state/UNIT/log/PROGRAM.
start_program() {
  local unit=$1 program=$2
  shift 2
  program_runs "$unit" "$program" && return
  # The inner shell expands its arguments. It ends at once, so that the program becomes a child of
  # the unit's pid 1.
  # shellcheck disable=SC2016
  in_unit "$unit" env -i HOME=/root PATH=/run/kestrel/cluster/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    bash -c 'log=$1; shift; "$@" </dev/null >>"$log" 2>&1 3>&- 9>&- &' - "/run/kestrel/cluster/$unit/log/$program" "$program" "$@"
}

# stopped UNIT PROGRAM…: a sentence for each PROGRAM that does not run, with the last line of its log.
stopped() {
  local unit=$1 program
  shift
  for program in "$@"; do
    program_runs "$unit" "$program" || printf '; %s of %s has stopped: %s' "$program" "$unit" "$(tail -n 1 "$state/$unit/log/$program")"
  done
}
