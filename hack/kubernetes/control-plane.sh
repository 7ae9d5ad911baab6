# shellcheck shell=bash
# The unit with etcd, the API server, the controller manager and the scheduler. It shares nothing
# with node1 but the network, so that the cluster survives the loss of any node. Sourced.

control_plane_programs=(etcd kube-apiserver kube-controller-manager kube-scheduler)

kubectl() { "$state/bin/kubectl" --kubeconfig "$state/kubeconfig" --cache-dir "$state/kubectl" "$@"; }

api_is_ready() { kubectl get --raw /readyz &>/dev/null; }

# api_has_settled: it is ready, or will not be any more.
api_has_settled() { api_is_ready || [[ -n $(stopped control-plane etcd kube-apiserver) ]]; }

# start_control_plane: each of its programs that does not run.
start_control_plane() {
  local pki=/run/kestrel/cluster/pki
  unit_pid control-plane >/dev/null || start_unit control-plane
  start_program control-plane etcd --data-dir /var/lib/etcd
  start_program control-plane kube-apiserver \
    --advertise-address="$(node_ip node1)" --etcd-servers=http://127.0.0.1:2379 \
    --service-cluster-ip-range="$service_network.0/16" \
    --client-ca-file=$pki/ca.crt --tls-cert-file=$pki/apiserver.crt --tls-private-key-file=$pki/apiserver.key \
    --kubelet-client-certificate=$pki/apiserver-kubelet-client.crt --kubelet-client-key=$pki/apiserver-kubelet-client.key \
    --kubelet-certificate-authority=$pki/ca.crt --kubelet-preferred-address-types=InternalIP \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file=$pki/service-accounts.key --service-account-signing-key-file=$pki/service-accounts.key \
    --requestheader-client-ca-file=$pki/front-proxy-ca.crt --requestheader-allowed-names=front-proxy-client \
    --requestheader-username-headers=X-Remote-User --requestheader-group-headers=X-Remote-Group \
    --requestheader-extra-headers-prefix=X-Remote-Extra- \
    --proxy-client-cert-file=$pki/front-proxy-client.crt --proxy-client-key-file=$pki/front-proxy-client.key \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true \
    --default-not-ready-toleration-seconds=30 --default-unreachable-toleration-seconds=30
  wait_for 60 api_has_settled
  api_is_ready || fail "the API server is not ready$(stopped control-plane etcd kube-apiserver); the logs are $state/control-plane/log/*; a cluster whose data is damaged is made anew by: hack/cluster down, hack/cluster up"
  # More requests a second than the defaults allow, so that the controllers start in one second
  # instead of five; a lost node is found in 16 seconds instead of 50.
  start_program control-plane kube-controller-manager \
    --kubeconfig=$pki/kube-controller-manager.conf --use-service-account-credentials --leader-elect=false \
    --root-ca-file=$pki/ca.crt --service-account-private-key-file=$pki/service-accounts.key \
    --cluster-signing-cert-file=$pki/ca.crt --cluster-signing-key-file=$pki/ca.key \
    --kube-api-qps=200 --kube-api-burst=400 --node-monitor-period=2s --node-monitor-grace-period=16s
  start_program control-plane kube-scheduler --kubeconfig=$pki/kube-scheduler.conf --leader-elect=false
}
