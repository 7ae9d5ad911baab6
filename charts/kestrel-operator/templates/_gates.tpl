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

{{/*
Where node agents receive access logs of proxies: port, bytes a second of a stream and, for TLS, a Secret; nothing, where they don't.
*/}}
{{- define "kestrel.nodeAccessLogs" -}}
{{- $istio := (.Values.operator | default dict).istio | default dict }}
{{- if and (include "kestrel.accessLogs" .) $istio.onNodes .Values.nodeAgent.enabled }}
port: {{ $istio.alsPort | int }}
bytes: {{ $istio.streamBytesPerSecond | int64 }}
secret: {{ $istio.existingSecret | quote }}
{{- end }}
{{- end }}
