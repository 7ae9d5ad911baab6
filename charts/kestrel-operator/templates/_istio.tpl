{{/* Whether access logs of Envoys are received: "true", "auto" (as soon as the cluster has Istio), or nothing. */}}
{{- define "kestrel.accessLogs" -}}
{{- $mode := ((.Values.operator).istio).enabled | toString }}
{{- if has $mode (list "true" "auto") }}{{ $mode }}{{ end }}
{{- end }}

{{/* What the aggregator, and its check, know of Istio and of the access log service. */}}
{{- define "kestrel.istioEnv" -}}
{{- $istio := (.Values.operator | default dict).istio | default dict }}
{{- with $istio.rootNamespace }}
- name: KESTREL_ISTIO_ROOT_NAMESPACE
  value: {{ . | quote }}
{{- end }}
{{- if $istio.collectorNamespaces }}
- name: KESTREL_ISTIO_COLLECTORS
  value: "true"
{{- end }}
{{- with include "kestrel.accessLogs" . }}
- name: ENABLE_ISTIO_ALS
  value: {{ . | quote }}
- name: ISTIO_ALS_PORT
  value: {{ $istio.alsPort | int | quote }}
{{- if $istio.existingSecret }}
- name: KESTREL_ALS_TLS_DIR
  value: /etc/kestrel/als-tls
{{- end }}
{{- end }}
{{- if include "kestrel.nodeAccessLogs" . }}
- name: KESTREL_ISTIO_ON_NODES
  value: "true"
{{- end }}
{{- end }}

{{/*
Those of the providers "names" (of TCP where they end in -tcp, else of HTTP) that a Telemetry may name, separated by blanks: with
operator.istio.telemetry: true all, with auto those that Istio's mesh configuration knows, of every revision: a Telemetry is for the proxies of all,
and one that is not there would make them log nothing.
*/}}
{{- define "kestrel.knownProviders" -}}
{{- $istio := .root.Values.operator.istio }}
{{- $mode := toString $istio.telemetry }}
{{- $known := list }}
{{- if eq $mode "true" }}
{{- $known = .names }}
{{- else if eq $mode "auto" }}
{{- $maps := (lookup "v1" "ConfigMap" $istio.rootNamespace "").items }}
{{- range $name := .names }}
{{- $field := hasSuffix "-tcp" $name | ternary "envoyTcpAls" "envoyHttpAls" }}
{{- $with := 0 }}
{{- $without := 0 }}
{{- range $maps }}
{{- if and (regexMatch "^istio(-|$)" .metadata.name) (hasKey (.data | default dict) "mesh") }}
{{- $providers := (fromYaml .data.mesh).extensionProviders }}
{{- $is := false }}
{{- range kindIs "slice" $providers | ternary $providers list }}
{{- if kindIs "map" . }}
{{- $is = or $is (and (eq (toString .name) $name) (hasKey . $field)) }}
{{- end }}
{{- end }}
{{- if $is }}
{{- $with = add1 $with }}
{{- else }}
{{- $without = add1 $without }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $with (not $without) }}
{{- $known = append $known $name }}
{{- end }}
{{- end }}
{{- end }}
{{- $known | uniq | join " " }}
{{- end }}

{{/* A Telemetry that sends access logs to "providers". */}}
{{- define "kestrel.telemetry" -}}
apiVersion: telemetry.istio.io/{{ .root.Capabilities.APIVersions.Has "telemetry.istio.io/v1" | ternary "v1" "v1alpha1" }}
kind: Telemetry
metadata:
  name: {{ .name }}
  namespace: {{ .namespace | quote }}
  labels:
    {{- include "kestrel.labels" (dict "root" .root "component" "aggregator") | nindent 4 }}
spec:
  {{- with .selector }}
  selector:
    matchLabels:
      {{- toYaml . | nindent 6 }}
  {{- end }}
  accessLogging:
    - providers:
        {{- range splitList " " .providers }}
        - name: {{ . }}
        {{- end }}
{{- end }}
