# shellcheck shell=bash
# The cluster's network: one network namespace a node, joined by a bridge in a namespace of its
# own. The host gets one interface, kestrel0, and no route, rule or forwarding beyond it. Pods of
# other nodes are reached by plain routes; nothing leaves the cluster but towards the host. Sourced.

node_network=10.90.0    # /24: .1 is the host, .N+1 is node N
pod_network=10.244      # /16: node N has 10.244.N.0/24
service_network=10.96.0 # .1 is the API server, .10 the DNS; the range is 10.96.0.0/16
host_link=kestrel0

node_ip() { echo "$node_network.$((${1#node} + 1))"; }
pod_cidr() { echo "$pod_network.${1#node}.0/24"; }

# in_network NAME COMMAND…: runs COMMAND in a network namespace, but with the host's file system.
in_network() { nsenter --net="$state/net/$1" "${@:2}"; }

network_exists() { [[ $(stat -f -c %T "$state/net/$1" 2>/dev/null) == nsfs ]]; }

# create_network NAME: a namespace that lives as long as its file is mounted.
create_network() {
  network_exists "$1" && return
  mkdir -p "$state/net"
  : >"$state/net/$1"
  unshare --net="$state/net/$1" ip link set lo up
}

# create_switch: the bridge, and the host's port of it.
create_switch() {
  create_network switch
  in_network switch ip link show nodes &>/dev/null || in_network switch ip link add name nodes type bridge
  in_network switch ip link set nodes up
  if ! ip link show "$host_link" &>/dev/null; then
    ip link add "$host_link" type veth peer name host netns "$state/net/switch"
  fi
  in_network switch ip link set host up master nodes
  ip addr replace "$node_network.1/24" dev "$host_link"
  ip link set "$host_link" up
}

# create_node_network NODE NODE…: the node's interface eth0, and its routes to the pods of the
# other nodes. Each line may be repeated, so that an interrupted `up` is no harm.
create_node_network() {
  local node=$1 other leaving=(-s "$pod_network.0.0/16" ! -d "$pod_network.0.0/16" -j MASQUERADE)
  create_network "$node"
  if ! in_network "$node" ip link show eth0 &>/dev/null; then
    in_network switch ip link add "$node" type veth peer name eth0 netns "$state/net/$node"
  fi
  in_network switch ip link set "$node" up master nodes
  in_network "$node" ip addr replace "$(node_ip "$node")/24" dev eth0
  in_network "$node" ip link set eth0 up
  # A packet is routed before kube-proxy's rules turn a Service's address into a pod's.
  in_network "$node" ip route replace "$service_network.0/16" dev eth0
  for other in "${@:2}"; do
    [[ $other == "$node" ]] || in_network "$node" ip route replace "$(pod_cidr "$other")" via "$(node_ip "$other")"
  done
  # Pods are told at once, and every time, that an address outside the cluster has no route.
  in_network "$node" sysctl --quiet net.ipv4.ip_forward=1 net.ipv4.icmp_ratelimit=0
  in_network "$node" iptables -t nat -C POSTROUTING "${leaving[@]}" 2>/dev/null ||
    in_network "$node" iptables -t nat -A POSTROUTING "${leaving[@]}"
}

# delete_networks: the host's interface first; left to the namespace, it would outlive it for seconds.
delete_networks() {
  local file
  ! ip link show "$host_link" &>/dev/null || ip link del "$host_link"
  for file in "$state"/net/*; do
    [[ -e $file ]] || continue
    ! network_exists "${file##*/}" || umount "$file"
    rm "$file"
  done
}
