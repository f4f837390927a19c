{{- define "osler.labels" -}}
app.kubernetes.io/name: osler
app.kubernetes.io/instance: {{ .release }}
app.kubernetes.io/component: {{ .room }}
{{- end }}
{{- define "osler.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- define "osler.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
{{- define "osler.environment" -}}
envFrom:
  - configMapRef: {name: {{ .Release.Name }}-settings}
  - secretRef: {name: {{ .Values.existingSecret }}}
{{- end }}
{{- define "osler.container" -}}
image: {{ include "osler.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- include "osler.restricted" . | nindent 2 }}
{{ include "osler.environment" . }}
{{- end }}
{{- define "osler.passwords" -}}
{{- if .Values.cloudnativepg.enabled }}
- name: OSLER_DATABASE__PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .Release.Name }}-postgres-app, key: password}}
{{- end }}
{{- if .Values.strimzi.enabled }}
- name: OSLER_BUS__SECURITY__PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .Release.Name }}-rooms, key: password}}
{{- end }}
{{- end }}
{{- define "osler.mounts" -}}
- {name: home, mountPath: /var/lib/osler}
- {name: tmp, mountPath: /tmp}
{{- if .Values.tls.enabled }}
- {name: tls, mountPath: /etc/osler/tls, readOnly: true}
{{- end }}
{{- if .Values.strimzi.enabled }}
- {name: kafka, mountPath: /etc/osler/kafka, readOnly: true}
{{- end }}
{{- end }}
{{- define "osler.pod" -}}
serviceAccountName: {{ .Release.Name }}
automountServiceAccountToken: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- define "osler.volumes" -}}
- {name: home, emptyDir: {sizeLimit: 4Gi}}
- {name: tmp, emptyDir: {sizeLimit: 4Gi}}
{{- if .Values.tls.enabled }}
- {name: tls, secret: {secretName: {{ .Release.Name }}-tls}}
{{- end }}
{{- if .Values.strimzi.enabled }}
- {name: kafka, secret: {secretName: {{ .Release.Name }}-kafka-cluster-ca-cert}}
{{- end }}
{{- end }}
{{- /* One room to a pod: its operations door is the first port, whichever room it is. */ -}}
{{- define "osler.operationsBase" -}}
{{ sub .port (index (dict "ingest" 0 "imaging" 1 "registration" 2 "fusion" 3 "twin" 4 "advisor" 5 "alerts" 6 "board" 7 "analytics" 8) .room) }}
{{- end }}
{{- define "osler.kafka" -}}
{{- if .Values.strimzi.enabled }}{{ .Release.Name }}-kafka-kafka-bootstrap.{{ .Release.Namespace }}.svc:9093{{ else }}{{ .Values.settings.OSLER_BUS__BOOTSTRAP_SERVERS }}{{ end }}
{{- end }}
{{- /* A Ray node from Osler's own image: workers run the same code and libraries as the rooms. */ -}}
{{- define "osler.raypod" -}}
{{- $root := .root -}}
{{- /* The head asks the API server for workers, with the account that KubeRay gives it. */ -}}
automountServiceAccountToken: {{ .head | default false }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
volumes:
  {{- include "osler.volumes" $root | nindent 2 }}
  - {name: shm, emptyDir: {medium: Memory, sizeLimit: 4Gi}}
containers:
  - name: ray
    {{- include "osler.container" $root | nindent 4 }}
    env:
      - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
      # With RAY_AUTH_TOKEN of the secret, which rooms and workers share
      - {name: RAY_AUTH_MODE, value: token}
      {{- with include "osler.passwords" $root }}{{ . | nindent 6 }}{{ end }}
    resources: {{- toYaml .resources | nindent 6 }}
    volumeMounts:
      {{- include "osler.mounts" $root | nindent 6 }}
      - {name: shm, mountPath: /dev/shm}
{{- end }}
{{- /* KubeRay never changes the pods of a cluster that stands. A new image is a new cluster, which the new rooms join. */ -}}
{{- define "osler.models" -}}
{{ .Release.Name }}-models-{{ printf "%s %s" (include "osler.image" .) .Values.kuberay.rayVersion | sha256sum | trunc 8 }}
{{- end }}
