{{/* The Kubernetes version to render for. */}}
{{- define "kestrel.kubeVersion" -}}
{{ .Values.kubeVersion | default .Capabilities.KubeVersion.Version }}
{{- end }}

{{/*
"true" where the webhook can do its work. 1.30 is the first version whose API server knows all it needs: native
sidecars (KEP-753), matchConditions (KEP-3716) and ValidatingAdmissionPolicy (KEP-3488).
*/}}
{{- define "kestrel.injection" -}}
{{- if and .Values.webhook.enabled (semverCompare ">=1.30.0-0" (include "kestrel.kubeVersion" .)) }}true{{ end }}
{{- end }}

{{/*
"true" where manifests may be tried: from 1.30 on an admission policy holds the account to dry runs (KEP-3488).
*/}}
{{- define "kestrel.dryRun" -}}
{{- if and ((.Values.operator).executor).dryRun (semverCompare ">=1.30.0-0" (include "kestrel.kubeVersion" .)) }}true{{ end }}
{{- end }}

{{/* Namespaces whose pods concern the webhook and the notice for running pods. */}}
{{- define "kestrel.injectionNamespaces" -}}
{{- $selector := .Values.webhook.namespaceSelector | default dict -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: NotIn
    values:
      {{- concat (list .Release.Namespace "kube-system" "kube-public" "kube-node-lease") (.Values.webhook.excludedNamespaces | default list) | uniq | toYaml | nindent 6 }}
  {{- with $selector.matchExpressions }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with $selector.matchLabels }}
matchLabels:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
