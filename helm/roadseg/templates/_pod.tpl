{{/*
One Ray pod.
  root       the chart
  group      the pod's values: resources, nodeSelector, ...
  component  serve or train
  node       head or worker
  env        environment variables of this kind of pod
*/}}
{{- define "roadseg.pod" -}}
{{- $values := .root.Values -}}
{{- $serves := eq .component "serve" -}}
{{- $drain := ternary
      (dict "seconds" $values.serve.drainSeconds "work" "ServeReplica")
      (dict "seconds" $values.training.drainSeconds "work" "RayTrainWorker")
      $serves -}}
{{- $keys := and $serves $values.apiKeys.existingSecret -}}
metadata:
  labels:
    {{- include "roadseg.podLabels" (dict "root" .root "component" (printf "%s-%s" .component .node)) | nindent 4 }}
  {{- with $values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "roadseg.serviceAccountName" .root }}
  # Only the autoscaler, in the head pod, talks to the Kubernetes API.
  automountServiceAccountToken: {{ eq .node "head" }}
  {{- with $values.images.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  terminationGracePeriodSeconds: {{ ternary $values.serve.terminationGracePeriodSeconds (add $values.training.drainSeconds 30) $serves }}
  # Otherwise `ray start` is process 1, for which Linux ignores SIGTERM, and each pod lasts for the whole grace period.
  shareProcessNamespace: true
  securityContext:
    {{- include "roadseg.podSecurityContext" .root | nindent 4 }}
  containers:
    - name: ray-{{ .node }}
      image: {{ include "roadseg.image" (dict "root" .root "image" (get $values.images .component)) }}
      imagePullPolicy: {{ $values.images.pullPolicy }}
      securityContext:
        {{- include "roadseg.securityContext" .root | nindent 8 }}
      resources:
        {{- include "roadseg.resources" .group | nindent 8 }}
      ports:
        {{- if eq .node "head" }}
        - {name: gcs-server, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: as-metrics, containerPort: 44217}
        - {name: dash-metrics, containerPort: 44227}
        {{- end }}
        - {name: metrics, containerPort: 8080}
        {{- if $serves }}
        - {name: serve, containerPort: 8000}
        {{- if eq $values.serve.dataPlane "haproxy" }}
        - {name: haproxy, containerPort: 9101}
        {{- end }}
        {{- end }}
      env:
        - {name: HOME, value: /tmp}
        - {name: ROADSEG_CACHE, value: /cache}
        - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
        {{- include "roadseg.s3Env" .root | nindent 8 }}
        {{- .env | nindent 8 }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if eq .node "worker" }}
      {{- if $serves }}
      readinessProbe:
        exec:
          command:
            - bash
            - -c
            - |
              {{- include "roadseg.isReady" .root | nindent 14 }}
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 2
      {{- end }}
      lifecycle:
        preStop:
          exec:
            command:
              - bash
              - -c
              - |
                {{- include "roadseg.drain" $drain | nindent 16 }}
      {{- end }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: cache, mountPath: /cache}
        {{- if $keys }}
        - {name: api-keys, mountPath: /etc/roadseg/keys, readOnly: true}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {}
    - name: cache
      emptyDir: {}
    {{- if $keys }}
    # A folder, never a subPath: with a subPath, running pods would not see added or removed keys.
    - name: api-keys
      secret:
        secretName: {{ $values.apiKeys.existingSecret }}
        defaultMode: 0440
    {{- end }}
  {{- with .group.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .group.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .group.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .group.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- if eq .node "worker" }}
  topologySpreadConstraints:
    {{- if .group.topologySpreadConstraints }}
    {{- toYaml .group.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "roadseg.podLabels" (dict "root" $.root "component" (printf "%s-%s" $.component $.node)) | nindent 10 }}
    {{- end }}
    {{- end }}
  {{- end }}
{{- end -}}

{{/*
The preStop hook of a worker: it tells Ray that the node is leaving. Serve then starts its replicas elsewhere before it stops
them here, and a training run saves a checkpoint. Without this, Ray stops at once: a stage whose only replica was here is down
until another one has started, and a run goes back to its last checkpoint.
  seconds  the longest this may take
  work     prefix of the process names to wait for, after "ray::"
If the head is gone too, `ray drain-node` waits for it and ignores SIGTERM, so it is killed.
*/}}
{{- define "roadseg.drain" -}}
node=$(cat /proc/[0-9]*/cmdline 2> /dev/null | tr '\0' '\n' | sed -n 's/^--node_id=//p' | head -1)
timeout --signal KILL 15 ray drain-node --address "$RAY_ADDRESS" --node-id "$node" --reason DRAIN_NODE_REASON_PREEMPTION \
  --reason-message "the pod is being removed" --deadline-remaining-seconds {{ .seconds }} || exit 0
for _ in {1..{{ .seconds }}}; do
  pgrep --full '[r]ay::{{ .work }}' > /dev/null || exit 0  # the brackets keep pgrep from matching this script
  sleep 1
done
{{- end -}}

{{/* A container's resources, including its GPUs. */}}
{{- define "roadseg.resources" -}}
{{- $resources := .resources -}}
{{- if .numGpus -}}
{{- $resources = merge (dict "limits" (dict "nvidia.com/gpu" .numGpus)) (deepCopy $resources) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{/* The S3 endpoint, region and credentials. */}}
{{- define "roadseg.s3Env" -}}
{{- with .Values.s3 -}}
- {name: AWS_REGION, value: {{ .region | quote }}}
- {name: AWS_DEFAULT_REGION, value: {{ .region | quote }}}
{{- with .endpoint }}
- {name: AWS_ENDPOINT_URL, value: {{ . | quote }}}
{{- end }}
{{- with .existingSecret }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ $.Values.s3.existingSecret }}, key: {{ . }}}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}
