{{- define "espalier.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-{{ .Chart.Name }}{{ end }}
{{- end }}

{{/* What selects the pods of one part. Called with (list $ "router"). */}}
{{- define "espalier.selector" -}}
app.kubernetes.io/name: {{ (index . 0).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "espalier.labels" -}}
{{ include "espalier.selector" . }}
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ (index . 0).Chart.Name }}-{{ (index . 0).Chart.Version }}
{{- end }}

{{- define "espalier.repository" -}}
/models/{{ .Values.repository.folder }}
{{- end }}

{{/* The source of the volume at /models; nothing if there is none. */}}
{{- define "espalier.models" -}}
{{- with .Values.repository }}
{{- if .volume }}
{{- toYaml .volume }}
{{- else if .claim }}
persistentVolumeClaim: {claimName: {{ .claim }}, readOnly: true}
{{- end }}
{{- end }}
{{- end }}

{{/* First nobody sends new requests, then those in flight are finished, and a little is left to close in. */}}
{{- define "espalier.graceSeconds" -}}
{{ add .Values.preStopSeconds .Values.drainSeconds 10 }}
{{- end }}

{{- define "espalier.lifecycle" -}}
lifecycle:
  preStop:
    exec:
      command: [sleep, {{ .Values.preStopSeconds | quote }}]
{{- end }}

{{/* The server listens, and is live, before it loads; loading may take minutes, and is no reason to kill it. */}}
{{- define "espalier.probes" -}}
startupProbe:
  httpGet: {path: /v2/health/live, port: http}
  periodSeconds: 2
  failureThreshold: 150
livenessProbe:
  httpGet: {path: /v2/health/live, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /v2/health/ready, port: http}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}

{{- define "espalier.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Called with (list $ user). fsGroup: what is mounted can be read, a Secret of mode 0440 among it. */}}
{{- define "espalier.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: {{ index . 1 }}
  runAsGroup: {{ index . 1 }}
  fsGroup: {{ index . 1 }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* Called with a part of the values: its resources, with its GPUs. */}}
{{- define "espalier.resources" -}}
{{- $resources := deepCopy .resources }}
{{- if .gpus }}
{{- $resources = merge (dict "limits" (dict "nvidia.com/gpu" .gpus)) $resources }}
{{- end }}
resources:
  {{- toYaml $resources | nindent 2 }}
{{- end }}

{{/* Called with (list $ "router"). */}}
{{- define "espalier.placement" -}}
{{- $part := index (index . 0).Values (index . 1) }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "espalier.selector" . | nindent 8 }}
{{- with (index . 0).Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
