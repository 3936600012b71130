{{- define "roadseg.trainCluster" -}}
{{- include "roadseg.cluster" (dict
      "root" .
      "values" .Values.training
      "component" "train"
      "env" (include "roadseg.trainEnv" .)
      "idle" .Values.training.idleTimeoutSeconds
    ) -}}
{{- end -}}

{{- define "roadseg.trainEnv" -}}
# Lets a stopped job save a checkpoint.
- {name: RAY_JOB_STOP_WAIT_TIME_S, value: {{ .Values.training.jobStopWaitSeconds | quote }}}
- {name: RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S, value: {{ .Values.training.workerGroupStartTimeoutSeconds | quote }}}
{{- end -}}

{{/* The pod that submits the job and follows its log; KubeRay sets its command. */}}
{{- define "roadseg.submitter" -}}
metadata:
  labels:
    {{- include "roadseg.podLabels" (dict "root" . "component" "train-submitter") | nindent 4 }}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  {{- with .Values.images.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  securityContext:
    {{- include "roadseg.podSecurityContext" . | nindent 4 }}
  containers:
    - name: ray-job-submitter
      image: {{ include "roadseg.image" (dict "root" . "image" .Values.images.train) }}
      imagePullPolicy: {{ .Values.images.pullPolicy }}
      securityContext:
        {{- include "roadseg.securityContext" . | nindent 8 }}
      resources:
        requests: {cpu: 100m, memory: 512Mi}
        limits: {memory: 512Mi}
      env:
        - {name: HOME, value: /tmp}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
  volumes:
    - name: tmp
      emptyDir: {}
{{- end -}}
