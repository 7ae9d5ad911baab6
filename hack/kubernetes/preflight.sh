# shellcheck shell=bash
# What must hold before anything on the host is changed, each with a sentence that says what to do.
# Sourced.

# preflight: fails at the first thing that is missing.
preflight() {
  [[ $(uname -s) == Linux ]] || fail 'the cluster needs Linux: its nodes are namespaces and control groups'
  case "$cache/" in /run/* | /proc/* | /sys/*) fail "$cache cannot hold the cluster; set XDG_CACHE_HOME to a folder on a disk" ;; esac
  check_kernel
  check_cgroups
  check_go kubernetes coredns
  check_disk
  check_addresses
}

check_kernel() {
  unshare --mount --uts --ipc --net --pid --fork true 2>/dev/null ||
    fail 'this process may not make namespaces (in a container: start it with --privileged)'
  grep -qw overlay /proc/filesystems || modprobe --dry-run --quiet overlay ||
    fail 'the kernel has no overlay file system (CONFIG_OVERLAY_FS), on which containerd puts images'
}

check_cgroups() {
  local controller
  for controller in "${cgroup_controllers[@]}"; do
    if cgroup_v2; then
      grep -qw "$controller" "$cgroup_root/cgroup.controllers" ||
        fail "cgroup v2 lacks the controller '$controller' (see $cgroup_root/cgroup.controllers); on some machines a kernel argument turns it on, e.g. cgroup_enable=memory"
    else
      [[ -e $cgroup_root/$controller/cgroup.procs ]] ||
        fail "no cgroup hierarchy with the controller '$controller' at $cgroup_root/$controller"
    fi
  done
  # A group other than the machine's own root (inside a container) cannot both hold processes and
  # pass its controllers on; the machine's own root has no cgroup.type.
  [[ ! -e $cgroup_root/cgroup.type || -z $(<"$cgroup_root/cgroup.procs") ]] ||
    fail "$cgroup_root is a container's own control group and holds processes, so nothing can be delegated below it; move them into a child group first"
}

# check_go PROGRAM…: a toolchain, unless every PROGRAM is built.
check_go() {
  local wanted found folders=("${@/#/$hack/}")
  ! are_built "$@" || return 0
  wanted=$(awk '$1 == "go" { print $2 }' "${folders[@]/%//go.mod}" | sort -V | tail -n 1)
  command -v go >/dev/null || fail "no Go toolchain in PATH; Go $wanted or newer is needed (with sudo: sudo env PATH=\"\$PATH\" $0 …)"
  found=$(go env GOVERSION)
  [[ $(printf '%s\n' "$wanted" "${found#go}" | sort -V | head -n 1) == "$wanted" || $(go env GOTOOLCHAIN) != local ]] ||
    fail "Go ${found#go} is too old, $wanted or newer is needed"
  say "Go modules are built for the first time, which takes some minutes; watch it with: tail -f $log"
}

check_disk() {
  local needed=3 free
  are_built kubernetes coredns || needed=12
  mkdir -p "$cache"
  free=$(df --output=avail --block-size=1G "$cache" | tail -n 1)
  ((free >= needed)) || fail "$cache has $free GB free, $needed GB are needed (modules, build cache, images)"
}

# check_owner: a machine has room for one cluster, and each cluster touches itself alone.
check_owner() {
  ! ip link show "$host_link" &>/dev/null || network_exists switch ||
    fail "the interface $host_link belongs to a cluster with another state folder (another XDG_CACHE_HOME than $(dirname "$cache")); take that one down first"
}

check_addresses() {
  local routes
  check_owner
  ! ip link show "$host_link" &>/dev/null || return 0
  routes=$({ ip -4 route show to match "$node_network.0/24"; ip -4 route show to root "$node_network.0/24"; } | grep -v '^default' || true)
  [[ -z $routes ]] || fail "the addresses $node_network.0/24 are in use on this machine (${routes%%$'\n'*}); change node_network in hack/kubernetes/network.sh"
}
