{{/* Not empty if flows of Hubble are read. */}}
{{- define "kestrel.readsHubble" -}}
{{- if eq (((.Values.operator).cilium).disableFlows | toString) "false" }}yes{{ end }}
{{- end }}

{{/* The values that are set and have no effect in this version, a line each. Parentheses keep a null parent from being an error. */}}
{{- define "kestrel.unused" -}}
{{- $operator := .Values.operator | default dict }}
{{- $set := dict
  "image.repository" (list (include "kestrel.isOldImage" .) (printf "that is the program of chart 0.1, which this chart does not run; %s is run" (include "kestrel.image" .)))
  "image.tag" (list (and (eq (.Values.image.tag | default "") "latest") (not .Values.image.digest)) (printf "latest names no version; %s is run" (include "kestrel.image" .)))
  "useCiliumNetworkPolicy" (list .Values.useCiliumNetworkPolicy "no CiliumNetworkPolicy is made; networkPolicy.create serves clusters with Cilium too")
  "k8sApiServer.cidr" (list (and (.Values.k8sApiServer).cidr (not (.Values.networkPolicy).create)) "no NetworkPolicy is made without networkPolicy.create")
  "hubble.cidr" (list (and (.Values.hubble).cidr (not (and (.Values.networkPolicy).create (include "kestrel.readsHubble" .)))) "it narrows the way to Hubble Relay with networkPolicy.create and operator.cilium.disableFlows: false alone")
  "operator.cilium.hubble.tls.forceDisable" (list (and ((($operator.cilium).hubble).tls).forceDisable (not (include "kestrel.readsHubble" .))) "Hubble is not read while operator.cilium.disableFlows is true")
  "operator.executor.dryRun" (list (and ($operator.executor).dryRun (not (include "kestrel.dryRun" .))) "nothing holds an account to dry runs before Kubernetes 1.30")
  "operator.otel.enabled" (list ($operator.otel).enabled "metrics are not received")
  "operator.datadog.enabled" (list ($operator.datadog).enabled "Datadog is not queried")
  "operator.argocd.enabled" (list (and ($operator.argocd).enabled (not ($operator.argocd).namespace)) "operator.argocd.namespace has to say where Argo CD is")
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
