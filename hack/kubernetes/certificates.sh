# shellcheck shell=bash
# Keys, certificates and kubeconfigs of the cluster, made once and kept in $pki. Sourced.

pki="$state/pki"

# authority NAME: a CA. Nothing that is there is made again.
authority() {
  [[ ! -e $pki/$1.crt ]] || return 0
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=$1" \
    -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$pki/$1.key" -out "$pki/$1.part"
  mv "$pki/$1.part" "$pki/$1.crt"
}

# certificate FILE CA SUBJECT [NAMES]: for clients, and with NAMES (DNS:…,IP:…) for servers too.
certificate() {
  local file=$1 ca=$2 subject=$3 names=${4:-}
  [[ ! -e $pki/$file.crt ]] || return 0
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$subject" -keyout "$pki/$file.key" |
    openssl x509 -req -days 3650 -CA "$pki/$ca.crt" -CAkey "$pki/$ca.key" -CAcreateserial -out "$pki/$file.part" -extfile <(
      echo keyUsage=critical,digitalSignature
      echo extendedKeyUsage=clientAuth,serverAuth
      [[ -z $names ]] || echo "subjectAltName=$names"
    )
  mv "$pki/$file.part" "$pki/$file.crt"
}

# service_accounts_key: signs the tokens of service accounts.
service_accounts_key() {
  [[ -e $pki/service-accounts.key ]] || openssl ecparam -name prime256v1 -genkey -noout -out "$pki/service-accounts.key"
}

# kubeconfig FILE CERTIFICATE: for the API server at $api_address, with everything inside, so that the
# file can be copied.
kubeconfig() {
  [[ ! -e $1 ]] || return 0
  cat >"$1.part" <<YAML
apiVersion: v1
kind: Config
current-context: kestrel
contexts: [{name: kestrel, context: {cluster: kestrel, user: kestrel}}]
clusters:
- name: kestrel
  cluster:
    server: https://$api_address
    certificate-authority-data: $(base64 -w0 "$pki/ca.crt")
users:
- name: kestrel
  user:
    client-certificate-data: $(base64 -w0 "$pki/$2.crt")
    client-key-data: $(base64 -w0 "$pki/$2.key")
YAML
  mv "$1.part" "$1"
}

# create_certificates NODE…: for the control plane and every node.
create_certificates() {
  local node
  (
    umask 077
    mkdir -p "$pki"
    authority ca
    authority front-proxy-ca
    certificate apiserver ca /CN=kube-apiserver "DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,DNS:kubernetes.default.svc.cluster.local,DNS:localhost,IP:127.0.0.1,IP:$service_network.1,IP:$(node_ip node1)"
    certificate apiserver-kubelet-client ca /O=system:masters/CN=kube-apiserver-kubelet-client
    certificate front-proxy-client front-proxy-ca /CN=front-proxy-client
    certificate admin ca /O=system:masters/CN=kubernetes-admin
    certificate kube-controller-manager ca /CN=system:kube-controller-manager
    certificate kube-scheduler ca /CN=system:kube-scheduler
    certificate kube-proxy ca /CN=system:kube-proxy
    service_accounts_key
    kubeconfig "$state/kubeconfig" admin
    kubeconfig "$pki/kube-controller-manager.conf" kube-controller-manager
    kubeconfig "$pki/kube-scheduler.conf" kube-scheduler
    kubeconfig "$pki/kube-proxy.conf" kube-proxy
    for node in "$@"; do
      certificate "$node" ca "/O=system:nodes/CN=system:node:$node" "DNS:$node,IP:$(node_ip "$node")"
      kubeconfig "$pki/$node.conf" "$node"
    done
  )
}
