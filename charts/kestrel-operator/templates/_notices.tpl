{{/* The values that are set and have no effect in this version, a line each. Parentheses keep a null parent from being an error. */}}
{{- define "kestrel.unused" -}}
{{- $operator := .Values.operator | default dict }}
{{- $off := ($operator.cilium).disableFlows | toString }}
{{- $set := dict
  "networkPolicy.create" (list (.Values.networkPolicy).create "no NetworkPolicy is made")
  "useCiliumNetworkPolicy" (list .Values.useCiliumNetworkPolicy "no CiliumNetworkPolicy is made")
  "k8sApiServer.cidr" (list (.Values.k8sApiServer).cidr "no NetworkPolicy is made")
  "hubble.cidr" (list (.Values.hubble).cidr "no NetworkPolicy is made")
  "operator.cilium.disableFlows" (list (eq $off "false") "network flows are not read")
  "operator.cilium.hubble.tls.forceDisable" (list ((($operator.cilium).hubble).tls).forceDisable "network flows are not read")
  "operator.istio.enabled" (list ($operator.istio).enabled "Envoy's access logs are not received")
  "operator.otel.enabled" (list ($operator.otel).enabled "metrics are not received")
  "operator.datadog.enabled" (list ($operator.datadog).enabled "Datadog is not queried")
  "operator.safeApply.enabled" (list ($operator.safeApply).enabled "nothing is ever changed in the cluster")
  "nameOverride" (list .Values.nameOverride "names are fixed")
  "fullnameOverride" (list .Values.fullnameOverride "names are fixed")
  "serviceAccount.name" (list (.Values.serviceAccount).name "names are fixed")
  "serviceAccount.create" (list (eq ((.Values.serviceAccount).create | toString) "false") "the ServiceAccounts are always made")
}}
{{- range $value, $notice := $set }}
{{- if first $notice }}
  {{ $value }}: {{ last $notice }}
{{- end }}
{{- end }}
{{- end }}
