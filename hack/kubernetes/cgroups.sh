# shellcheck shell=bash
# The control groups of the nodes: /kestrel/NODE in every hierarchy; the kubelet of a node puts its
# pods below. cgroup v2, and v1 with or without a v2 hierarchy beside it, are handled. Sourced.

cgroup_root=/sys/fs/cgroup
cgroup_parent=kestrel
cgroup_controllers=(cpu cpuset memory pids)

cgroup_v2() { [[ $(stat -f -c %T "$cgroup_root") == cgroup2fs ]]; }

# cgroup_v1_hierarchies: the folders of the controllers. The v2 hierarchy of a hybrid layout is not
# among them: the runtime makes its own groups there.
cgroup_v1_hierarchies() {
  local folder
  for folder in "$cgroup_root"/*/; do
    folder=${folder%/}
    [[ -L $folder || ${folder##*/} == unified || ! -e $folder/cgroup.procs ]] || echo "$folder"
  done
}

# create_cgroup NODE
create_cgroup() {
  local hierarchy
  if cgroup_v2; then
    delegate "$cgroup_root"
    mkdir -p "$cgroup_root/$cgroup_parent"
    delegate "$cgroup_root/$cgroup_parent"
    mkdir -p "$cgroup_root/$cgroup_parent/$1"
  else
    for hierarchy in $(cgroup_v1_hierarchies); do
      mkdir -p "$hierarchy/$cgroup_parent/$1"
      # A new cpuset is empty, and no process can enter an empty one.
      [[ ! -e $hierarchy/cpuset.cpus ]] || {
        copy_cpuset "$hierarchy" "$hierarchy/$cgroup_parent"
        copy_cpuset "$hierarchy" "$hierarchy/$cgroup_parent/$1"
      }
    done
  fi
}

# delegate GROUP: lets the groups below GROUP use the controllers that a kubelet needs. It insists on
# hugetlb where the machine has it.
delegate() {
  local controller
  for controller in "${cgroup_controllers[@]}" hugetlb io; do
    ! grep -qw "$controller" "$1/cgroup.controllers" || echo "+$controller" >"$1/cgroup.subtree_control"
  done
}

copy_cpuset() {
  cat "$1/cpuset.cpus" >"$2/cpuset.cpus"
  cat "$1/cpuset.mems" >"$2/cpuset.mems"
}

# cgroups_of GROUP: GROUP's folders in all hierarchies, the runtime's own ones included.
cgroups_of() {
  local folder
  for folder in "$cgroup_root/$1" "$cgroup_root"/*/"$1"; do
    [[ ! -d $folder || -L ${folder%"/$1"} ]] || echo "$folder"
  done
}

# cgroup_is_empty GROUP: no process is left in GROUP or below.
cgroup_is_empty() {
  local folder
  for folder in $(cgroups_of "$1"); do
    [[ -z $(find "$folder" -name cgroup.procs -exec cat {} + 2>/dev/null) ]] || return 1
  done
}

# delete_cgroup GROUP
delete_cgroup() {
  local folder
  wait_for 20 cgroup_is_empty "$1" || fail "processes are left in the control group /$1; see: find $cgroup_root -path '*/$1/*' -name cgroup.procs"
  for folder in $(cgroups_of "$1"); do
    find "$folder" -depth -type d -exec rmdir {} +
  done
}
