{{/* How Kestrel Cloud is reached, and with which credentials: of the aggregator, and of the test that tries the same. */}}

{{- define "kestrel.cloudEnv" -}}
- name: SERVER_HOST
  value: {{ .Values.server.host | quote }}
- name: SERVER_PORT
  value: {{ .Values.server.port | int | quote }}
{{- with .Values.server.tls.serverName }}
- name: SERVER_NAME
  value: {{ . | quote }}
{{- end }}
- name: TLS_INSECURE_SKIP_VERIFY
  value: {{ .Values.server.tls.insecureSkipVerify | quote }}
{{- with .Values.server.proxy }}
{{- if .existingSecret }}
- name: HTTPS_PROXY
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret | quote }}
      key: {{ .existingSecretKey | quote }}
{{- else if .url }}
- name: HTTPS_PROXY
  value: {{ .url | quote }}
{{- end }}
{{- with .noProxy }}
- name: NO_PROXY
  value: {{ . | quote }}
{{- end }}
{{- end }}
- name: AUTH_TOKEN_FILE
  value: /etc/kestrel/auth/token
- name: CLIENT_CERT_FILE
  value: /tls/client.crt
- name: CLIENT_KEY_FILE
  value: /tls/client.key
- name: CA_CERT_FILE
  value: /tls/ca.crt
{{- end }}

{{- define "kestrel.credentialMounts" -}}
- name: auth
  mountPath: /etc/kestrel/auth
  readOnly: true
- name: tls
  mountPath: /tls
  readOnly: true
{{- end }}

{{- define "kestrel.credentialVolumes" -}}
# Credentials are files, so that a rotation is seen without a restart. They are optional, so that a missing
# Secret is a sentence in the aggregator's log, not a pod that hangs in ContainerCreating.
- name: auth
  secret:
    secretName: {{ .Values.auth.existingSecret | default (printf "%s-jwt" .Release.Name) | quote }}
    optional: true
    defaultMode: 288 # 0440, in a form that every reader of YAML understands
    items:
      - key: {{ .Values.auth.existingSecret | empty | ternary "token" .Values.auth.existingSecretKey | quote }}
        path: token
- name: tls
  secret:
    secretName: {{ .Values.certificates.existingSecret | default (printf "%s-client-tls" .Release.Name) | quote }}
    optional: true
    defaultMode: 288 # 0440, in a form that every reader of YAML understands
    items:
      - key: tls.crt
        path: client.crt
      - key: tls.key
        path: client.key
      - key: ca.crt
        path: ca.crt
{{- end }}
