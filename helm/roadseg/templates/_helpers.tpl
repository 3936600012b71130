{{/* Names: short enough that a job's name, up to 10 more, is within the 47 that KubeRay allows. */}}
{{- define "roadseg.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 36 | trimSuffix "-" -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 36 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "roadseg.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (include "roadseg.fullname" .) -}}
{{- end -}}

{{- define "roadseg.tokenSecretName" -}}
{{- .Values.rayToken.existingSecret | default (printf "%s-ray-token" (include "roadseg.fullname" .)) -}}
{{- end -}}

{{/*
The service for the pods that can answer. Not the one that KubeRay makes, which moves from an old cluster to a new one when Serve
says that it runs: a second or two before the new pods know where to lead a request, so that some are answered with 404.
*/}}
{{- define "roadseg.serveService" -}}
{{- include "roadseg.fullname" . }}
{{- end -}}

{{- define "roadseg.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "roadseg.selector" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* What all pods of a release have. Not app.kubernetes.io/name: KubeRay's head service selects its own value of it. */}}
{{- define "roadseg.selector" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
{{- end -}}

{{/* Labels of pods; nothing here may change with the chart's version, or each upgrade would ask for a new cluster. */}}
{{- define "roadseg.podLabels" -}}
{{ include "roadseg.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object: root, name; labels and annotations of its own. */}}
{{- define "roadseg.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "roadseg.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* An image's reference: root, image (of .Values.images). */}}
{{- define "roadseg.image" -}}
{{- $tag := printf ":%s" (.image.tag | default .root.Chart.AppVersion) -}}
{{- if .image.digest }}{{ $tag = printf "@%s" .image.digest }}{{ end -}}
{{- with .root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .image.repository }}{{ $tag -}}
{{- end -}}

{{/* The restricted Pod Security Standard, in two parts. */}}
{{- define "roadseg.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 1000
runAsGroup: 1000
fsGroup: 1000
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "roadseg.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ .Values.readOnlyRootFilesystem }}
capabilities:
  drop: [ALL]
{{- end -}}
