# shellcheck shell=bash
# The operator and a development cloud in a cluster: what hack/demo and hack/test do alike.
# Sourced after progress.sh; `hack` is the folder of this file.

operator_namespace=kestrel-ai
cloud_namespace=kestrel-cloud
export KESTREL_CLOUD_STATE="$cache/dev-cloud"

# shellcheck source=packages.sh
source "$hack/packages.sh"

# build_tools: kubectl and helm on the PATH.
build_tools() { PATH="$("$hack/cluster" tools):$PATH" && export PATH; }

cluster_is_up() { "$hack/cluster" status &>/dev/null; }

# use_cluster [KUBECONFIG]: that cluster, else ours, which is brought up.
use_cluster() {
  build_tools
  if [[ -n ${1:-} ]]; then
    export KUBECONFIG=$1
    kubectl version >/dev/null || fail "the cluster of $1 does not answer"
  else
    cluster_is_up || "$hack/cluster" up
    KUBECONFIG=$("$hack/cluster" kubeconfig) && export KUBECONFIG
  fi
}

# images_on_nodes REGISTRY/PREFIX NAME…: builds these images, or the usual ones, and brings them to the nodes, by
# that registry or, if it is empty, straight. Prints their names.
images_on_nodes() {
  local images
  if [[ -n $1 ]]; then
    images=$("$hack/images" --push "$@")
  else
    images=$("$hack/images" "${@:2}")
    # shellcheck disable=SC2086 # one word each
    "$hack/cluster" load $images
  fi
  printf '%s\n' "$images"
}

# provide_images [REGISTRY/PREFIX]: the usual images. Sets operator_image, cloud_image and sample_image.
provide_images() {
  local images
  images=$(images_on_nodes "${1:-}")
  operator_image=$(grep kestrel-operator: <<<"$images")
  cloud_image=$(grep kestrel-dev-cloud: <<<"$images")
  sample_image=$(grep kestrel-sample: <<<"$images")
  export operator_image cloud_image sample_image
}

# dev_cloud ARGUMENT…: the development cloud's program on this machine.
dev_cloud() { "$hack/dev-cloud" "$@"; }

# install_cloud: a development cloud in the cluster, with credentials that are kept between runs and
# a record that is empty.
install_cloud() {
  local state=$KESTREL_CLOUD_STATE
  dev_cloud credentials --state "$state" \
    --helm-values "$state/values.yaml" --host "kestrel-cloud.$cloud_namespace.svc" --port 50051
  dev_cloud manifest --state "$state" --image "$cloud_image" --namespace "$cloud_namespace" | kubectl apply --server-side -f -
  kubectl -n "$cloud_namespace" rollout restart deployment/kestrel-cloud
  kubectl -n "$cloud_namespace" rollout status deployment/kestrel-cloud --timeout=120s
}

# install_operator ARGUMENT…: the chart, pointed at the development cloud; arguments go to Helm.
install_operator() {
  helm upgrade --install kestrel-operator "$hack/../charts/kestrel-operator" \
    --namespace "$operator_namespace" --create-namespace --values "$KESTREL_CLOUD_STATE/values.yaml" \
    --set "image.repository=${operator_image%:*}" --set "image.tag=${operator_image##*:}" --set image.pullPolicy=IfNotPresent \
    --wait --timeout 3m "$@"
}

# install_cert_manager [REGISTRY/PREFIX]: cert-manager by the chart that is in its Go module.
install_cert_manager() {
  local image chart
  image=$(images_on_nodes "${1:-}" cert-manager)
  chart=$(cd "$hack/cert-manager" && go list -m -f '{{.Dir}}' github.com/cert-manager/cert-manager)/deploy/charts/cert-manager
  helm upgrade --install cert-manager "$chart" --namespace cert-manager --create-namespace \
    --values "$hack/cert-manager/values.yaml" --wait --timeout 3m \
    --set "image.repository=${image%:*},webhook.image.repository=${image%:*},cainjector.image.repository=${image%:*}" \
    --set "image.tag=${image##*:},webhook.image.tag=${image##*:},cainjector.image.tag=${image##*:}"
}

remove_cert_manager() {
  helm uninstall cert-manager --namespace cert-manager --ignore-not-found --wait
  kubectl delete namespace cert-manager --ignore-not-found --timeout=120s
}

# remove_installation: operator, development cloud and their namespaces.
remove_installation() {
  helm uninstall kestrel-operator --namespace "$operator_namespace" --ignore-not-found --wait
  kubectl delete namespace "$operator_namespace" "$cloud_namespace" --ignore-not-found --timeout=120s
}
