{{/* The settings of the graph: .Values.app, with the file of API keys. */}}
{{- define "roadseg.app" -}}
{{- $app := deepCopy .Values.app -}}
{{- if .Values.apiKeys.existingSecret -}}
{{- $file := dict "api_keys_file" (printf "/etc/roadseg/keys/%s" .Values.apiKeys.key) -}}
{{- $_ := set $app "gate" (merge $file ($app.gate | default dict)) -}}
{{- end -}}
{{- toYaml $app -}}
{{- end -}}

{{- define "roadseg.serveConfig" -}}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 8000
logging_config:
  encoding: JSON
  enable_access_log: false
applications:
  - name: roadseg
    route_prefix: /
    import_path: roadseg_serve.app:build
    args:
      {{- include "roadseg.app" . | nindent 6 }}
{{- end -}}

{{- define "roadseg.serveEnv" -}}
# Ray's request ids are ours, and X-Forwarded-For is ours to judge: docs/security.md.
- {name: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, value: "roadseg_serve.http.request_id:around_ray"}
- {name: FORWARDED_ALLOW_IPS}  # empty: whose word is taken is said in app.gate.trusted_proxies
- {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ .Values.serve.drainSeconds | quote }}}
{{- if eq .Values.serve.dataPlane "haproxy" }}
- {name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}
- {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
# With that, a line of the log would wait for 999 others, and end with the pod if it is killed.
- {name: RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE, value: "1"}
# Between the stages, 4 MiB unless said otherwise; the largest is an upload or a decoded picture, with what belongs to it.
- {name: RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH, value: {{ include "roadseg.largestMessage" . | quote }}}
{{- end }}
{{- with .Values.tracing }}
{{- if .endpoint }}
# Whether a request is traced is decided by our code, with OpenTelemetry's own variables: docs/observe.md.
- {name: RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH, value: "roadseg_serve.observe.trace:otlp_exporter"}
- {name: RAY_SERVE_TRACING_SAMPLING_RATIO, value: "0"}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .endpoint | quote }}}
- {name: OTEL_SERVICE_NAME, value: {{ include "roadseg.fullname" $ | quote }}}
- {name: OTEL_TRACES_SAMPLER, value: parentbased_traceidratio}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ .samplingRatio | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* Bytes: an upload, and a picture of 3 bytes a pixel with its mask; gRPC takes no more than 2 GiB. */}}
{{- define "roadseg.largestMessage" -}}
{{- min 2147483647 (add (int64 .Values.app.max_upload_bytes) (mul 4 (int64 .Values.app.max_pixels))) -}}
{{- end -}}

{{/*
Whether a worker may get requests. KubeRay's own question has the first two parts, and not the third: a pod whose Serve is well
but has not heard of the application yet answers 404.
*/}}
{{- define "roadseg.isReady" -}}
ask() { wget --tries 1 --timeout 2 --quiet --output-document - "http://localhost:$1"; }
ask 52365/api/local_raylet_healthz | grep --quiet success &&
  ask 8000/-/healthz | grep --quiet success &&
  ask 8000/-/routes | grep --quiet roadseg
{{- end -}}

