{{/* What the pods of all three workloads share. Arguments are (dict "root" $ "component" "aggregator"). */}}

{{- define "kestrel.selector" -}}
app.kubernetes.io/name: kestrel-operator
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "kestrel.labels" -}}
{{ include "kestrel.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- define "kestrel.podMetadata" -}}
labels:
  {{- merge (include "kestrel.selector" . | fromYaml) (.root.Values.podLabels | default dict) | toYaml | nindent 2 }}
{{- with .root.Values.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* "true" where a values file of chart 0.1 names that chart's program, which can't run in our place. */}}
{{- define "kestrel.isOldImage" -}}
{{- if eq .Values.image.repository "ghcr.io/kestrelai/kestrel-operator" }}true{{ end }}
{{- end }}

{{/*
The image: of the values, or the one that the chart was made for. latest is no tag. What is before the first slash is a
registry if it looks like the name of a host.
*/}}
{{- define "kestrel.image" -}}
{{- $given := ternary dict .Values.image (eq (include "kestrel.isOldImage" .) "true") -}}
{{- $own := splitList "@" (index .Chart.Annotations "kestrel.ai/image") -}}
{{- $repository := $given.repository | default (first $own) -}}
{{- with (.Values.global).imageRegistry -}}
{{- $repository = printf "%s/%s" . (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "") -}}
{{- end -}}
{{- $tag := $given.tag | default "latest" -}}
{{- $digest := $given.digest -}}
{{- if and (eq $tag "latest") (not $given.repository) (not $digest) }}{{ $digest = rest $own | first }}{{ end -}}
{{- if $digest -}}
{{ $repository }}@{{ $digest }}
{{- else -}}
{{ $repository }}:{{ eq $tag "latest" | ternary .Chart.AppVersion $tag }}
{{- end -}}
{{- end }}

{{/*
The pull secrets of which an annotated pod has to name one: where no node agent may have brought the image to its node,
and since 1.35, as kubelets ask each pod for a Secret that its image was pulled with.
*/}}
{{- define "kestrel.collectorPullSecrets" -}}
{{- $agent := .Values.nodeAgent -}}
{{- $isEverywhere := and $agent.enabled (not $agent.nodeSelector) (not $agent.affinity) -}}
{{- if or (not $isEverywhere) (semverCompare ">=1.35.0-0" (include "kestrel.kubeVersion" .)) -}}
{{- $names := list -}}
{{- range .Values.imagePullSecrets }}{{ $names = append $names .name }}{{ end -}}
{{- join "," $names -}}
{{- end -}}
{{- end }}

{{/* Service links are off: the Service kestrel-webhook would set KESTREL_WEBHOOK_PORT to an address. */}}
{{- define "kestrel.podSpec" -}}
serviceAccountName: kestrel-{{ .component }}
enableServiceLinks: false
priorityClassName: {{ .root.Values.priorityClassName | default "kestrel-operator" }}
terminationGracePeriodSeconds: 30
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where the two Deployments run: replicas on different nodes where there are enough. */}}
{{- define "kestrel.deploymentPlacement" -}}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "kestrel.selector" . | nindent 8 }}
    {{- if semverCompare ">=1.27.0-0" (include "kestrel.kubeVersion" .root) }}
    # In a roll-out the new pods are spread among themselves.
    matchLabelKeys: [pod-template-hash]
    {{- end }}
{{- include "kestrel.placement" .root.Values }}
{{- end }}

{{- define "kestrel.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* A pod that is not ready never holds up the drain of a node; API servers before 1.27 cannot be told so. */}}
{{- define "kestrel.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: kestrel-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "kestrel.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  {{- if semverCompare ">=1.27.0-0" (include "kestrel.kubeVersion" .root) }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  {{- end }}
  selector:
    matchLabels:
      {{- include "kestrel.selector" . | nindent 6 }}
{{- end }}

{{- define "kestrel.container" -}}
image: {{ include "kestrel.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [/kestrel-{{ .component }}]
livenessProbe:
  httpGet:
    path: /livez
    port: admin
  {{- toYaml .root.Values.healthcheck.livenessProbe | nindent 2 }}
readinessProbe:
  httpGet:
    path: /readyz
    port: admin
  {{- toYaml .root.Values.healthcheck.readinessProbe | nindent 2 }}
{{- end }}

{{- define "kestrel.env" -}}
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: HEALTH_PORT
  value: {{ .Values.healthcheck.port | int | quote }}
- name: KESTREL_LOG
  value: {{ .Values.log.filter | quote }}
- name: KESTREL_LOG_FORMAT
  value: {{ .Values.log.format }}
{{- end }}

{{- define "kestrel.adminPort" -}}
{{- if has (.Values.healthcheck.port | int) (list 8443 10250) }}
{{- fail "healthcheck.port must not be 8443 or 10250: the agent link and the webhook listen there" }}
{{- end -}}
- name: admin
  containerPort: {{ .Values.healthcheck.port | int }}
{{- end }}

{{- define "kestrel.nodeNameEnv" -}}
- name: NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
{{- end }}

{{- define "kestrel.linkEndpointEnv" -}}
- name: KESTREL_LINK_ENDPOINT
  value: https://kestrel-agent-link.{{ .Release.Namespace }}.svc:8443
{{- end }}

{{/* What is a secret beside what always is, one expression a line. The kubelet reads $$ as a dollar sign. */}}
{{- define "kestrel.redactEnv" -}}
{{- range .Values.podLogs.redact }}
{{- if mustRegexMatch . "" }}
{{- fail (printf "podLogs.redact: %q matches the empty text, and so would find something in every line" .) }}
{{- end }}
{{- end }}
{{- with .Values.podLogs.redact }}
- name: KESTREL_REDACT
  value: {{ join "\n" . | replace "$" "$$" | quote }}
{{- end }}
{{- end }}

{{- define "kestrel.excludedEnv" -}}
{{- with ((.Values.data | default dict).namespaces | default dict).exclude }}
- name: KESTREL_EXCLUDED_NAMESPACES
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}

{{/* The link's CA is published by the aggregator once it runs, so the ConfigMap may come after the pod. */}}
{{- define "kestrel.linkCaVolume" -}}
- name: link-ca
  configMap:
    name: kestrel-agent-link-ca
    optional: true
{{- end }}

{{/*
A server's certificate in a mounted Secret: cert-manager's, or one that exists; nothing where the program has an
authority of its own. Arguments: (dict "values" .Values.webhook "name" "kestrel-webhook"). The Secret is not optional:
the pod waits for it.
*/}}
{{- define "kestrel.serverSecret" -}}
{{- if and .values.existingSecret (.values.certManager).enabled }}
{{- fail (printf "%s: certManager.enabled and existingSecret both say where the certificate comes from; set one of them" .name) }}
{{- end }}
{{- if .values.existingSecret }}{{ .values.existingSecret }}
{{- else if (.values.certManager).enabled }}{{ .name }}-tls
{{- end }}
{{- end }}

{{- define "kestrel.serverSecretVolume" -}}
{{- with include "kestrel.serverSecret" . }}
- name: server-tls
  secret:
    secretName: {{ . | quote }}
    defaultMode: 288 # 0440, in a form that every reader of YAML understands
    items:
      - key: tls.crt
        path: tls.crt
      - key: tls.key
        path: tls.key
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- end }}

{{- define "kestrel.serverSecretMount" -}}
{{- if include "kestrel.serverSecret" . }}
- name: server-tls
  mountPath: /etc/kestrel/server-tls
  readOnly: true
{{- end }}
{{- end }}

{{/* The argument variable is the one by which the program is told to use the mounted certificate. */}}
{{- define "kestrel.serverSecretEnv" -}}
{{- if include "kestrel.serverSecret" . }}
- name: {{ .variable }}
  value: /etc/kestrel/server-tls
{{- end }}
{{- end }}

{{/* A quantity of storage in bytes. */}}
{{- define "kestrel.bytes" -}}
{{- $unit := regexFind "[A-Za-z]*$" (toString .) -}}
{{- $bytes := dict "" 1 "m" 0.001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18
  "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 -}}
{{- mulf (toString . | trimSuffix $unit | float64) (get $bytes $unit) | int64 -}}
{{- end }}

{{/* Bytes of the state volume that the spool may have: the kubelet evicts a pod that is over its limits. */}}
{{- define "kestrel.spoolBytes" -}}
{{- $limit := include "kestrel.bytes" .Values.aggregator.stateSizeLimit | int64 -}}
{{- with index (.Values.resources.limits | default dict) "ephemeral-storage" -}}
{{- $limit = min $limit (include "kestrel.bytes" .) -}}
{{- end -}}
{{- if lt $limit 16777216 -}}
{{- fail "aggregator.stateSizeLimit, and resources.limits.ephemeral-storage if it is set, must be at least 16Mi" -}}
{{- end -}}
{{- div $limit 2 -}}
{{- end }}
