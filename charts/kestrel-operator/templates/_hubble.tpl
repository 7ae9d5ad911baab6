{{/* How Hubble Relay is reached: of the aggregator, and of the test that tries the same. */}}

{{/* The Secret for Relay with TLS; nothing, where it is not read or is spoken to without. */}}
{{- define "kestrel.hubbleSecret" -}}
{{- $hubble := ((.Values.operator).cilium).hubble | default dict }}
{{- if and (include "kestrel.readsHubble" .) (ne (($hubble.tls).forceDisable | toString) "true") }}{{ ($hubble.tls).existingSecret | default "" }}{{ end }}
{{- end }}

{{- define "kestrel.hubbleEnv" -}}
{{- $hubble := ((.Values.operator).cilium).hubble | default dict }}
{{- if not (include "kestrel.readsHubble" .) }}
- name: DISABLE_CILIUM_FLOWS
  value: "true"
{{- else }}
{{- with ($hubble.relay).address }}
- name: KESTREL_HUBBLE_RELAY
  value: {{ . | quote }}
{{- end }}
{{- if include "kestrel.hubbleSecret" . }}
- name: KESTREL_HUBBLE_TLS_DIR
  value: /etc/kestrel/hubble-tls
{{- end }}
{{- with ($hubble.tls).serverName }}
- name: KESTREL_HUBBLE_SERVER_NAME
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "kestrel.hubbleMount" -}}
{{- if include "kestrel.hubbleSecret" . }}
- name: hubble-tls
  mountPath: /etc/kestrel/hubble-tls
  readOnly: true
{{- end }}
{{- end }}

{{- define "kestrel.hubbleVolume" -}}
{{- with include "kestrel.hubbleSecret" . }}
- name: hubble-tls
  secret:
    secretName: {{ . | quote }}
    defaultMode: 288 # 0440, in a form that every reader of YAML understands
{{- end }}
{{- end }}
