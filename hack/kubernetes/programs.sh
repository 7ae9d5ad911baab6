# shellcheck shell=bash
# The programs and images of the cluster: built from Go modules and kept in the cache, named by
# the hash of their sources, so that an unchanged source is never built twice. Sourced.

# module_version PROGRAM MODULE: the version of MODULE that hack/PROGRAM/go.mod requires.
module_version() { awk -v module="$2" '$1 == module { print $2; exit }' "$hack/$1/go.mod"; }

kubernetes_version=$(module_version kubernetes k8s.io/kubernetes)

# main_package PROGRAM
main_package() { if [[ $1 == helm ]]; then echo helm.sh/helm/v3/cmd/helm; else echo .; fi; }

# linker_flags PROGRAM: without its version Kubernetes calls itself v0.0.0-master, which the
# kubeVersion constraints of charts refuse.
linker_flags() {
  local package minor=${kubernetes_version#v1.}
  printf -- '-s -w'
  case $1 in
    kubernetes)
      for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
        printf ' -X %s' "$package.gitVersion=$kubernetes_version" "$package.gitMajor=1" "$package.gitMinor=${minor%%.*}" "$package.gitTreeState=clean"
      done
      ;;
    helm) printf ' -X helm.sh/helm/v3/internal/version.version=%s' "$(module_version helm helm.sh/helm/v3)" ;;
  esac
}

# program_file PROGRAM: where it lies once it is built from the module in hack/PROGRAM.
program_file() {
  local key
  key=$({
    linker_flags "$1"
    find "$hack/$1" -maxdepth 1 \( -name '*.go' -o -name 'go.*' \) -print0 | sort -z | xargs -0 cat
  } | sha256sum | cut -c1-12)
  echo "$cache/$1-$key"
}

are_built() {
  local program
  for program in "$@"; do
    [[ -x $(program_file "$program") ]] || return 1
  done
}

# build_program PROGRAM: unless the cache has it.
build_program() {
  local file
  ! are_built "$1" || return 0
  file=$(program_file "$1")
  (cd "$hack/$1" && CGO_ENABLED=0 go build -v -trimpath -buildvcs=false -ldflags "$(linker_flags "$1")" -o "$file.part" "$(main_package "$1")")
  mv "$file.part" "$file"
}

# build_kubernetes: the multi-call binary, and in $state/bin a link for each of its programs.
build_kubernetes() {
  local program
  build_program kubernetes
  mkdir -p "$state/bin"
  for program in etcd kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl; do
    ln -sfn "../../$(basename "$(program_file kubernetes)")" "$state/bin/$program"
  done
}

# build_images: pause and CoreDNS; their names go to files in $state/images.
build_images() {
  local files="$state/images/files"
  build_program coredns
  rm -rf "$files"
  mkdir -p "$files/pause" "$files/coredns"
  cc -Os -static -s -o "$files/pause/pause" "$hack/pause/pause.c"
  cp "$(program_file coredns)" "$files/coredns/coredns"
  build_image pause "$files/pause" --entrypoint '["/pause"]' --user 65535:65535 >"$state/images/pause"
  build_image coredns "$files/coredns" --entrypoint '["/coredns"]' >"$state/images/coredns"
  rm -rf "$files"
}

# build_tool PROGRAM NAME: puts the program under NAME into the folder of tools for $PATH.
build_tool() {
  build_program "$1"
  mkdir -p "$cache/bin"
  ln -sfn "../$(basename "$(program_file "$1")")" "$cache/bin/$2"
}
