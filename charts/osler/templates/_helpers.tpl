{{- define "osler.labels" -}}
app.kubernetes.io/name: osler
app.kubernetes.io/instance: {{ .release }}
app.kubernetes.io/component: {{ .room }}
{{- end }}
{{- define "osler.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- define "osler.container" -}}
image: {{ include "osler.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
envFrom:
  - configMapRef: {name: {{ .Release.Name }}-settings}
  - secretRef: {name: {{ .Values.existingSecret }}}
volumeMounts:
  - {name: home, mountPath: /var/lib/osler}
  - {name: tmp, mountPath: /tmp}
{{- end }}
{{- define "osler.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
volumes:
  - {name: home, emptyDir: {}}
  - {name: tmp, emptyDir: {}}
{{- end }}
