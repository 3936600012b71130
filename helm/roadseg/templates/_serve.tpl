{{/* The application's settings: .Values.app plus the API key file. */}}
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
# Our request ids and errors in Ray's proxy; X-Forwarded-For is left to us: docs/security.md.
- {name: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH, value: "roadseg_serve.graph.ray_proxy:middleware"}
- {name: FORWARDED_ALLOW_IPS}  # empty, because app.gate.trusted_proxies decides
- {name: RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S, value: {{ .Values.serve.drainSeconds | quote }}}
{{- if eq .Values.serve.dataPlane "haproxy" }}
- {name: RAY_SERVE_ENABLE_HA_PROXY, value: "1"}
- {name: RAY_SERVE_THROUGHPUT_OPTIMIZED, value: "1"}
# The optimization buffers 1,000 log lines, which are lost if the pod is killed.
- {name: RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE, value: "1"}
# gRPC's default of 4 MiB is too small for an upload or a decoded picture.
- {name: RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH, value: {{ include "roadseg.largestMessage" . | quote }}}
{{- end }}
{{- with .Values.tracing }}
{{- if .endpoint }}
# Our code samples by OpenTelemetry's standard variables; Ray's own sampling must be 0: docs/observe.md.
- {name: RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH, value: "roadseg_serve.observe.trace:otlp_exporter"}
- {name: RAY_SERVE_TRACING_SAMPLING_RATIO, value: "0"}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ .endpoint | quote }}}
- {name: OTEL_SERVICE_NAME, value: {{ include "roadseg.fullname" $ | quote }}}
- {name: OTEL_TRACES_SAMPLER, value: parentbased_traceidratio}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ .samplingRatio | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{/* In bytes: an upload plus a decoded picture (3 bytes per pixel) and its mask; gRPC's limit is 2 GiB. */}}
{{- define "roadseg.largestMessage" -}}
{{- min 2147483647 (add (int64 .Values.app.max_upload_bytes) (mul 4 (int64 .Values.app.max_pixels))) -}}
{{- end -}}

{{/*
The readiness probe of a worker. KubeRay's own probe has only the first two checks. The third is needed because Serve answers
404 as long as it is healthy but does not know the application yet.
*/}}
{{- define "roadseg.isReady" -}}
ask() { wget --tries 1 --timeout 2 --quiet --output-document - "http://localhost:$1"; }
ask 52365/api/local_raylet_healthz | grep --quiet success &&
  ask 8000/-/healthz | grep --quiet success &&
  ask 8000/-/routes | grep --quiet roadseg
{{- end -}}

