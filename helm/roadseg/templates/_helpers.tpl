{{/* The prefix of all names. KubeRay allows 47 characters; a job's name adds up to 10. */}}
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
The Service for clients; it selects pods that are ready. KubeRay's own Service switches to a new cluster as soon as Serve runs,
a second or two before the new pods know the routes, and some requests get a 404.
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

{{/* Labels of all pods of a release. KubeRay's head Service selects its own value of app.kubernetes.io/name, so it is not one. */}}
{{- define "roadseg.selector" -}}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: {{ .Chart.Name }}
{{- end -}}

{{/* Labels of pods. None may depend on the chart's version, or every upgrade would need a new cluster. */}}
{{- define "roadseg.podLabels" -}}
{{ include "roadseg.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* metadata of an object; takes root, name and, optionally, labels and annotations. */}}
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

{{/* Reference of an image; takes root and image, one of .Values.images. */}}
{{- define "roadseg.image" -}}
{{- $tag := printf ":%s" (.image.tag | default .root.Chart.AppVersion) -}}
{{- if .image.digest }}{{ $tag = printf "@%s" .image.digest }}{{ end -}}
{{- with .root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .image.repository }}{{ $tag -}}
{{- end -}}

{{/* What the restricted Pod Security Standard asks of pods and, below, of containers. */}}
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
