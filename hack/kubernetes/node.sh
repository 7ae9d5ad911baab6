# shellcheck shell=bash
# A node: a unit with containerd, the kubelet and kube-proxy, an interface on the cluster's bridge
# and a control group. Sourced.

node_programs=(containerd kubelet kube-proxy)

# start_node NODE: each of its programs that does not run, and what they need.
start_node() {
  local image node=$1 configuration=/run/kestrel/cluster/$1
  if ! unit_pid "$node" >/dev/null; then
    forget_last_life "$node"
    create_cgroup "$node"
    start_unit "$node"
  fi
  mkdir -p "$state/$node/cni"
  containerd_configuration "$node" >"$state/$node/containerd.toml"
  cni_configuration "$node" >"$state/$node/cni/pods.conflist"
  kubelet_configuration "$node" >"$state/$node/kubelet.yaml"
  kube_proxy_configuration "$node" >"$state/$node/kube-proxy.yaml"
  # Nothing outside the cluster can be resolved: refused at once instead of a timeout.
  echo 'nameserver 127.0.0.1' >"$state/$node/resolv.conf"

  register_node "$node"
  start_program "$node" kube-proxy --config "$configuration/kube-proxy.yaml" --hostname-override "$node"
  start_program "$node" containerd --config "$configuration/containerd.toml"
  wait_for 20 ctr_in "$node" version || fail "containerd of $node does not answer$(stopped "$node" containerd); its log is $state/$node/log/containerd"
  for image in pause coredns; do import_image "$node" "$(archive_of "$(<"$state/images/$image")")"; done
  start_program "$node" kubelet --config "$configuration/kubelet.yaml" --kubeconfig "/run/kestrel/cluster/pki/$node.conf" \
    --hostname-override "$node" --node-ip "$(node_ip "$node")"
}

# forget_last_life NODE: a node that was lost leaves groups of dead containers, for each of which the
# kubelet would wait seconds, and it may still pass for Ready.
forget_last_life() {
  delete_cgroup "$cgroup_parent/$1"
  kubectl patch node "$1" --subresource=status \
    --patch '{"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStarts"}]}}' || true
}

# register_node NODE: makes the Node object before the kubelet does, because its pod addresses are
# the ones that the other nodes' routes know, kube-proxy waits for its address, and the scheduler
# spreads pods over the nodes that it knows by name.
register_node() {
  kubectl get node "$1" &>/dev/null || kubectl create -f - <<YAML
apiVersion: v1
kind: Node
metadata: {name: $1, labels: {kubernetes.io/hostname: $1}}
spec: {podCIDR: $(pod_cidr "$1"), podCIDRs: [$(pod_cidr "$1")]}
status: {addresses: [{type: InternalIP, address: $(node_ip "$1")}, {type: Hostname, address: $1}]}
YAML
}

# ctr_in NODE ARGUMENT…: containerd's own client, in the kubelet's namespace of images.
ctr_in() { in_unit "$1" ctr --namespace k8s.io "${@:2}"; }

# import_image NODE ARCHIVE: unless this containerd has it. The name of an archive of ours names its
# content too, so its mark says what to look for: a kubelet that runs out of disk removes images.
import_image() {
  local node=$1 archive=$2 marks="$state/$1/var/lib/containerd/imported" mark names
  if [[ $archive == "$archives"/* && -e $marks/${archive##*/} ]]; then
    mapfile -t names <"$marks/${archive##*/}"
    [[ -z $(ctr_in "$node" images ls --quiet "name==${names[0]}") ]] || return 0
  fi
  ctr_in "$node" images import - <"$archive"
  [[ $archive == "$archives"/* ]] || return 0
  mkdir -p "$marks"
  names_in "$archive" >"$marks/${archive##*/}"
  # Images whose archive the cache has dropped go.
  for mark in "$marks"/*; do
    [[ -e $archives/${mark##*/} ]] && continue
    mapfile -t names <"$mark"
    ctr_in "$node" images rm "${names[@]}"
    rm "$mark"
  done
}

# names_in ARCHIVE: containerd's names of the image, one a line: its own and that of its configuration.
names_in() {
  tar --extract --to-stdout --file "$1" manifest.json |
    sed -E 's/.*"Config":"([0-9a-f]{64})\.json","RepoTags":\["([^"]+)"\].*/\2\nsha256:\1/'
}

# Where root has no CAP_SYS_RESOURCE (in many virtual machines and containers), no process may lower its OOM score:
# restrict_oom_score_adj keeps the runtime from trying. An AppArmor profile would stay in the host's kernel.
containerd_configuration() {
  cat <<TOML
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "$(<"$state/images/pause")"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/run/kestrel/cluster/$1/cni"
TOML
}

# Every pod has a link to its node and no bridge to its neighbours: Services then work between pods
# of one node without br_netfilter, a module that changes the behaviour of the host's bridges.
cni_configuration() {
  cat <<JSON
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipam": {"type": "host-local", "ranges": [[{"subnet": "$(pod_cidr "$1")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
JSON
}

# Images are never collected, because those that were loaded can be pulled from nowhere. Logs are
# rotated early on the first node and by default on the others, and looked at as often as the kubelet allows; mounted ConfigMaps and Secrets follow
# their objects within seconds.
kubelet_configuration() {
  cat <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: /run/kestrel/cluster/pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: /run/kestrel/cluster/pki/$1.crt
tlsPrivateKeyFile: /run/kestrel/cluster/pki/$1.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$cgroup_parent/$1
failCgroupV1: false
failSwapOn: false
clusterDNS: [$service_network.10]
clusterDomain: cluster.local
resolvConf: /run/kestrel/cluster/$1/resolv.conf
volumePluginDir: /var/lib/kubelet/volume-plugins
nodeLeaseDurationSeconds: 10
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
containerLogMaxSize: $([[ $1 == node1 ]] && echo 1Mi || echo 10Mi)
containerLogMaxFiles: 5
containerLogMonitorInterval: 3s
syncFrequency: 5s
YAML
}

# The table of connections has a size that only the host may set.
kube_proxy_configuration() {
  cat <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: $pod_network.0.0/16
conntrack: {maxPerCore: 0, min: 0}
clientConnection: {kubeconfig: /run/kestrel/cluster/pki/kube-proxy.conf}
YAML
}
