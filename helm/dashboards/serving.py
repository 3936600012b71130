"""Serving: what clients notice, and why."""

from helm.dashboards.panel import Dashboard, Panel, quantile, quantiles, rate, total

REQUESTS = "ray_serve_num_http_requests_total"
# HAProxy knows no other name for an upload.
UPLOAD = 'method="POST"'

FAILED = rate(REQUESTS, where=f'{UPLOAD}, status_code=~"5.."')
UPLOADS = rate(REQUESTS, where=UPLOAD)

DASHBOARD = Dashboard(
    name="serving",
    title="roadseg: Serving",
    description="What clients notice of the service, and where their requests spend their time.",
    rows={
        "Traffic": (
            Panel(
                "Uploads each second, by answer",
                "2xx are masks; 4xx is what is wrong with what was sent; 5xx is ours. A fall to nothing while "
                "clients send is an ingress that leads nowhere: look at the pods that are ready.",
                "reqps",
                {"{{status_code}}": rate(REQUESTS, "status_code", UPLOAD)},
            ),
            Panel(
                "Share of uploads that fail",
                "Answers with 5xx. Above the objective's budget for long, an alert comes. 503 says that there is no "
                "room: look at what waits, below, and at Autoscaling. 500 and 504: look at failures by kind and at "
                "the pods' logs.",
                "percentunit",
                {"failed": f"({FAILED} or 0 * {UPLOADS}) / {UPLOADS}"},
            ),
            Panel(
                "All requests each second, by method",
                "GET is the page, /health and Ray's own questions. Much of it without uploads is somebody's probe.",
                "reqps",
                {"{{method}}": rate(REQUESTS, "method")},
            ),
            Panel(
                "Refused uploads each second, by reason",
                "The end of the problem's type in the answer. One reason that jumps is one client with a fault; "
                "rate-limit and api-key ones may be an attack or a key that was changed.",
                "reqps",
                {
                    "{{reason}}": rate("ray_roadseg_rejected_uploads_total", "reason"),
                    "{{reason}}, by Ray": rate("ray_roadseg_refused_by_ray_total", "reason"),
                },
                width=12,
            ),
            Panel(
                "Failures inside the stages each second, by kind",
                "Exceptions by stage; those that tell of a bad picture are also refusals. Any other that lasts: its "
                "traceback is in the log of that stage's pod.",
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
                "From the first byte to the last, the client's own slowness included. If it is high, the panels "
                "beside say which step it is.",
                "ms",
                quantiles("ray_serve_http_request_latency_ms", UPLOAD),
            ),
            Panel(
                "Time of each step, 95 % are below",
                "queue is waiting for the model: more replicas or GPUs. infer is the model itself. decode, resize "
                "and encode are large pictures or too few CPUs: more replicas of preprocess and postprocess.",
                "ms",
                {"{{stage}}": quantile(0.95, "ray_roadseg_stage_latency_ms", "stage")},
            ),
            Panel(
                "Time in each deployment, 95 % are below",
                "Of one replica's work, with what it waits for of others. The one that grew first is the cause.",
                "ms",
                {"{{deployment}}": quantile(0.95, "ray_serve_deployment_processing_latency_ms", "deployment")},
            ),
        ),
        "Queue and saturation": (
            Panel(
                "Requests that wait for a replica",
                "Should be near 0. If it stays up, the deployment is too small: look at Autoscaling, whether it may "
                "grow.",
                "short",
                {"{{deployment}}": total("ray_serve_deployment_queued_queries", "deployment")},
            ),
            Panel(
                "Time until a replica is found, 95 % are below",
                "Milliseconds are fine; seconds say that all replicas are full.",
                "ms",
                {"{{deployment}}": quantile(0.95, "ray_serve_request_router_fulfillment_time_ms", "deployment")},
            ),
            Panel(
                "How busy the replicas are",
                "Of the requests that they may have at a time. Above 80 % for long there is no reserve for a lost pod.",
                "percent",
                {"{{deployment}}": total("ray_serve_replica_utilization_percent", "deployment", how="avg")},
            ),
            Panel(
                "Requests in work",
                "Uneven over pods is a replica that hangs; delete its pod.",
                "short",
                {"{{deployment}}": total("ray_serve_replica_processing_queries", "deployment")},
            ),
            Panel(
                "Replicas that HAProxy leads to, fewest of any pod",
                "Fewer than the ingress has replicas, for more than seconds: a pod that does not see the others; "
                "look at the NetworkPolicy. Empty with dataPlane python.",
                "short",
                {"replicas": 'min(haproxy_backend_active_servers{OURS, proxy=~"http-.*"})'},
            ),
            Panel(
                "Connections that HAProxy could not make, each second",
                "Ingress replicas that vanished or are full. A few at a change are retried; a steady rate is not "
                "normal.",
                "cps",
                {"failed": rate("haproxy_backend_connection_errors_total")},
            ),
        ),
    },
)
