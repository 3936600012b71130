"""Serving: what clients experience, and why."""

from helm.dashboards.panel import Dashboard, Panel, quantile, quantiles, rate, total

REQUESTS = "ray_serve_num_http_requests_total"
# HAProxy's metrics have no better label for an upload.
UPLOAD = 'method="POST"'

FAILED = rate(REQUESTS, where=f'{UPLOAD}, status_code=~"5.."')
UPLOADS = rate(REQUESTS, where=UPLOAD)

DASHBOARD = Dashboard(
    name="serving",
    title="roadseg: Serving",
    description="Errors and latency as clients see them, and where requests spend their time.",
    rows={
        "Traffic": (
            Panel(
                "Uploads per second, by status",
                "2xx are masks, 4xx are client errors, 5xx are server errors. If it drops to 0 while clients send, "
                "the ingress has no backend: check which pods are ready.",
                "reqps",
                {"{{status_code}}": rate(REQUESTS, "status_code", UPLOAD)},
            ),
            Panel(
                "Share of uploads that fail",
                "Share of 5xx responses; alerts fire if it uses up the error budget. 503 means no capacity: see the "
                "queues below and Autoscaling. For 500 and 504 see the exceptions and the pods' logs.",
                "percentunit",
                {"failed": f"({FAILED} or 0 * {UPLOADS}) / {UPLOADS}"},
            ),
            Panel(
                "All requests per second, by method",
                "GET is the web page, /health and Ray's health checks. Many without uploads come from a probe.",
                "reqps",
                {"{{method}}": rate(REQUESTS, "method")},
            ),
            Panel(
                "Refused uploads per second, by reason",
                "The last part of the error's type. If one reason jumps, a client has a bug; bad-key and rate-limited "
                "may be an attack or a changed key.",
                "reqps",
                {
                    "{{reason}}": rate("ray_roadseg_rejected_uploads_total", "reason"),
                    "{{reason}}, by Ray": rate("ray_roadseg_refused_by_ray_total", "reason"),
                },
                width=12,
            ),
            Panel(
                "Exceptions in the stages per second",
                "Exceptions for bad pictures are also counted as refused uploads. For any other that persists, see "
                "the traceback in the log of that stage's pod.",
                "reqps",
                {
                    "{{deployment}} {{exception_type}}": rate(
                        "ray_serve_deployment_error_counter_total", "deployment, exception_type"
                    )
                },
                width=12,
            ),
        ),
        "Latency": (
            Panel(
                "Time to answer an upload",
                "From the first byte to the last, so slow clients count. If it is high, the next panels show "
                "which step is slow.",
                "ms",
                quantiles("ray_serve_http_request_latency_ms", UPLOAD),
            ),
            Panel(
                "Time of each step, p95",
                "queue is the wait for the model: add replicas or GPUs. infer is the model itself. decode, resize and "
                "encode grow with large pictures or too few CPUs: add replicas of preprocess and postprocess.",
                "ms",
                {"{{stage}}": quantile(0.95, "ray_roadseg_stage_latency_ms", "stage")},
            ),
            Panel(
                "Time in each deployment, p95",
                "One replica's time, including its wait for other stages. The one that grew first is the cause.",
                "ms",
                {"{{deployment}}": quantile(0.95, "ray_serve_deployment_processing_latency_ms", "deployment")},
            ),
        ),
        "Queue and saturation": (
            Panel(
                "Requests waiting for a replica",
                "Should be near 0. If it stays high, the deployment is too small: see Autoscaling for whether it can "
                "grow.",
                "short",
                {"{{deployment}}": total("ray_serve_deployment_queued_queries", "deployment")},
            ),
            Panel(
                "Time until a replica is found, p95",
                "Milliseconds are fine; seconds mean that all replicas are full.",
                "ms",
                {"{{deployment}}": quantile(0.95, "ray_serve_request_router_fulfillment_time_ms", "deployment")},
            ),
            Panel(
                "Utilisation of the replicas",
                "Share of max_ongoing_requests in use. Above 80 % for long, no reserve is left for a lost pod.",
                "percent",
                {"{{deployment}}": total("ray_serve_replica_utilization_percent", "deployment", how="avg")},
            ),
            Panel(
                "Requests being processed",
                "If it stays up when no requests arrive, a replica hangs: delete its pod.",
                "short",
                {"{{deployment}}": total("ray_serve_replica_processing_queries", "deployment")},
            ),
            Panel(
                "Replicas behind HAProxy, minimum over pods",
                "If it stays below the number of ingress replicas, a pod cannot reach the others: check the "
                "NetworkPolicy. Empty with dataPlane python.",
                "short",
                {"replicas": 'min(haproxy_backend_active_servers{OURS, proxy=~"http-.*"})'},
            ),
            Panel(
                "Connection errors of HAProxy per second",
                "Ingress replicas are gone or full. A few during an update are retried; a steady rate is not normal.",
                "cps",
                {"failed": rate("haproxy_backend_connection_errors_total")},
            ),
        ),
    },
)
