{{/* Fails on values with which Kubernetes or Ray would wait forever without an error. */}}
{{- define "roadseg.preflight" -}}
{{- $app := .Values.app -}}
{{- $workers := .Values.serve.workers -}}
{{- $stages := ternary (list "predict") (list "ingress" "preprocess" "predict" "postprocess") (eq $app.form "fused") -}}
{{- $sum := 0.0 -}}
{{- range $stages -}}
{{- $stage := get $app . -}}
{{- if gt (float64 $stage.num_cpus) (float64 $workers.numCpus) -}}
{{- fail (printf "a replica of app.%s needs %v CPUs, but a worker pod has %v; raise serve.workers.numCpus (and its resources) or lower app.%s.num_cpus" . $stage.num_cpus $workers.numCpus .) -}}
{{- end -}}
{{- if gt (float64 ($stage.num_gpus | default 0)) (float64 $workers.numGpus) -}}
{{- fail (printf "a replica of app.%s needs %v GPUs, but a worker pod has %v; raise serve.workers.numGpus or lower app.%s.num_gpus" . $stage.num_gpus $workers.numGpus .) -}}
{{- end -}}
{{- $sum = addf $sum (mulf (include "roadseg.fewestReplicas" $stage) $stage.num_cpus) -}}
{{- end -}}
{{- $most := mulf $workers.maxReplicas $workers.numCpus -}}
{{- if gt $sum $most -}}
{{- fail (printf "the minimum number of replicas in app needs %v CPUs, but serve.workers has at most %v; raise serve.workers.maxReplicas or numCpus" $sum $most) -}}
{{- end -}}
{{- range $name, $part := dict "serve" .Values.serve "training" .Values.training -}}
{{- if gt (int $part.workers.minReplicas) (int $part.workers.maxReplicas) -}}
{{- fail (printf "%s.workers.minReplicas is above %s.workers.maxReplicas; lower the first or raise the second" $name $name) -}}
{{- end -}}
{{- end -}}
{{- $gate := $app.gate | default dict -}}
{{- if and .Values.apiKeys.existingSecret (or $gate.api_keys_file $gate.api_keys_env) -}}
{{- fail "API keys are set twice; with apiKeys.existingSecret, remove app.gate.api_keys_file and app.gate.api_keys_env" -}}
{{- end -}}
{{- if le (int .Values.serve.terminationGracePeriodSeconds) (int .Values.serve.drainSeconds) -}}
{{- fail "pods would be killed before they have drained; raise serve.terminationGracePeriodSeconds above serve.drainSeconds" -}}
{{- end -}}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) -}}
{{- fail "httpRoute needs a Gateway; set httpRoute.parentRefs, such as [{name: public, namespace: gateways}]" -}}
{{- end -}}
{{- if and .Values.training.job.enabled (not .Values.training.job.args) -}}
{{- fail "roadseg-train fit needs --data and --run; set training.job.args, such as [--data, s3://road/CamVid, --run, s3://road/runs/first]" -}}
{{- end -}}
{{- end -}}

{{- define "roadseg.fewestReplicas" -}}
{{- with .autoscaling_config }}{{ .min_replicas | default 0 }}{{ else }}{{ .num_replicas | default 1 }}{{ end -}}
{{- end -}}
