# shellcheck shell=bash
# Debian packages that a command needs. Sourced after progress.sh.

# install_packages PROGRAM=PACKAGE…: the packages whose PROGRAM (in PATH, or a file) is missing. Asked
# for by program, because other distributors' packages (containerd.io) provide the same and must
# not be replaced.
install_packages() {
  local pair missing=()
  for pair in "$@"; do
    command -v "${pair%=*}" >/dev/null || [[ -e ${pair%=*} ]] || missing+=("${pair#*=}")
  done
  ((${#missing[@]})) || return 0
  ((EUID == 0)) || fail "these packages are missing: ${missing[*]}; install them, or run this as root"
  apt-get update
  DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends --no-remove "${missing[@]}"
  # The package starts a containerd for the whole machine. The cluster has its own.
  if [[ " ${missing[*]} " == *' containerd '* && -d /run/systemd/system ]]; then
    systemctl disable --now containerd
  fi
}
