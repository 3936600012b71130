{{/*
The spec of a RayCluster.
  root       the chart
  values     .Values.serve or .Values.training: head and workers
  component  serve or train
  env        environment variables of its pods
  idle       seconds after which an idle worker is removed
  redis      gcsFaultTolerance; optional
*/}}
{{- define "roadseg.cluster" -}}
rayVersion: {{ index .root.Chart.Annotations "roadseg/ray-version" | quote }}
authOptions:
  mode: token
  secretName: {{ include "roadseg.tokenSecretName" .root }}
enableInTreeAutoscaling: true
autoscalerOptions:
  version: v2
  idleTimeoutSeconds: {{ .idle }}
  imagePullPolicy: {{ .root.Values.images.pullPolicy }}
  securityContext:
    {{- include "roadseg.securityContext" .root | nindent 4 }}
  resources:
    requests: {cpu: 100m, memory: 512Mi}
    limits: {memory: 512Mi}
  env:
    - {name: HOME, value: /tmp}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
{{- if and .redis .redis.redisAddress }}
gcsFaultToleranceOptions:
  redisAddress: {{ .redis.redisAddress | quote }}
  {{- with .redis.existingSecret }}
  redisPassword:
    valueFrom:
      secretKeyRef: {name: {{ . }}, key: {{ $.redis.key }}}
  {{- end }}
{{- end }}
headGroupSpec:
  rayStartParams:
    # The head only coordinates.
    num-cpus: "0"
  template:
    {{- include "roadseg.pod" (merge (dict "node" "head" "group" .values.head) .) | nindent 4 }}
workerGroupSpecs:
  - groupName: {{ .component }}
    minReplicas: {{ .values.workers.minReplicas }}
    maxReplicas: {{ .values.workers.maxReplicas }}
    # The operator's default. If the operator wrote it, it would own the list and Helm 4 would refuse upgrades.
    scaleStrategy: {}
    rayStartParams:
      num-cpus: {{ .values.workers.numCpus | quote }}
    template:
      {{- include "roadseg.pod" (merge (dict "node" "worker" "group" .values.workers) .) | nindent 6 }}
{{- end -}}
