"""Autoscaling: replicas and pods wanted, allowed and running."""

from helm.dashboards.panel import Dashboard, Panel, quantile, rate, total

WANTED = total("ray_serve_autoscaling_desired_replicas", "deployment", how="max")
ALLOWED = total("ray_serve_autoscaling_target_replicas", "deployment", how="max")
HEALTHY = "ray_serve_deployment_replica_healthy"


def so_far(share: float, histogram: str, by: str) -> str:
    """A quantile since the controller started, for events that are too rare for a rate."""
    return f"histogram_quantile({share}, sum by (le, {by}) ({histogram}_bucket{{OURS}}))"


DASHBOARD = Dashboard(
    name="autoscaling",
    title="roadseg: Autoscaling",
    description="Whether there are enough replicas and pods for the load, and if not, why.",
    rows={
        "Replicas": (
            Panel(
                "Replicas: desired, target, actual",
                "Desired is what the load needs, target what minimum and maximum allow, actual what is healthy. If "
                "actual is below target, replicas do not start: see below. If target is below desired, see the next "
                "panel.",
                "short",
                {
                    "{{deployment}} desired": WANTED,
                    "{{deployment}} target": ALLOWED,
                    "{{deployment}} actual": f"sum by (deployment) ({HEALTHY}{{OURS}} == 1)",
                },
                width=16,
            ),
            Panel(
                "Desired minus target",
                "Above 0: raise app.predict.autoscaling_config.max_replicas, and serve.workers.maxReplicas to make "
                "room. Below 0: min_replicas keeps more than the load needs.",
                "short",
                {"{{deployment}}": f"{WANTED} - {ALLOWED}"},
            ),
            Panel(
                "Requests seen by the autoscaler",
                "Waiting and in progress, over all replicas. Divided by the target per replica, it gives desired.",
                "short",
                {
                    "{{deployment}} requests": total("ray_serve_autoscaling_total_requests", "deployment", how="max"),
                    "{{deployment}} target per replica": total(
                        "ray_serve_autoscaling_target_ongoing_requests", "deployment", how="max"
                    ),
                },
            ),
            Panel(
                "Age of the autoscaler's metrics, p95",
                "Ten seconds are normal. If it is more, the head is overloaded: give it CPU and memory.",
                "ms",
                {"{{deployment}}": quantile(0.95, "ray_serve_autoscaling_handle_metrics_delay_ms", "deployment")},
            ),
            Panel(
                "State of the deployments",
                "6 is healthy, 1 is waiting (for room or an image), 5 is unhealthy: see the RayService's status.",
                "none",
                {"{{deployment}}": total("ray_serve_deployment_status", "deployment", how="min")},
            ),
        ),
        "Starting": (
            Panel(
                "Startup time of a replica, p95",
                "All starts since the controller started. Total counts from the scaling decision; initialisation is "
                "loading and warming up the model. A large difference is waiting for pods and images; slow "
                "initialisation means a slow S3 or a large model.",
                "ms",
                {
                    "{{deployment}} total": so_far(0.95, "ray_serve_replica_startup_latency_ms", "deployment"),
                    "{{deployment}} initialisation": so_far(
                        0.95, "ray_serve_replica_initialization_latency_ms", "deployment"
                    ),
                },
                width=12,
            ),
            Panel(
                "Replica starts",
                "Since each node started. It grows with updates and load. If it grows without either, replicas are "
                "crashing: check their logs, and whether pods run out of memory.",
                "short",
                {"{{deployment}}": total("ray_serve_deployment_replica_starts_total", "deployment")},
                width=12,
            ),
        ),
        "Pods": (
            Panel(
                "Ray pods, by kind",
                "As Ray's autoscaler sees them. Pending for long: no machine has room; see kubectl describe pod.",
                "short",
                {
                    "{{component}} {{NodeType}} active": total("autoscaler_active_nodes", "component, NodeType"),
                    "{{component}} {{NodeType}} pending": total("autoscaler_pending_nodes", "component, NodeType"),
                },
                width=12,
            ),
            Panel(
                "Pods started and stopped",
                "If both keep growing, the cluster is flapping: raise serve.idleTimeoutSeconds or downscale_delay_s.",
                "short",
                {
                    "{{component}} started": total("autoscaler_started_nodes_total", "component"),
                    "{{component}} stopped": total("autoscaler_stopped_nodes_total", "component"),
                    "{{component}} failed to start": total("autoscaler_failed_create_nodes_total", "component"),
                },
                width=12,
            ),
        ),
        "Batches": (
            Panel(
                "Batch size",
                "If 1 under load, max_batch_size or batch_wait_timeout_s is too small, or requests come one by one.",
                "short",
                {
                    "p50": quantile(0.5, "ray_roadseg_batch_size"),
                    "p95": quantile(0.95, "ray_roadseg_batch_size"),
                },
            ),
            Panel(
                "Batch utilisation",
                "Share of max_batch_size. Always 100 % while requests wait: use larger batches or more replicas.",
                "percent",
                {"p50": quantile(0.5, "ray_serve_batch_utilization_percent")},
            ),
            Panel(
                "Predictions per second",
                "If it falls while requests wait, the model's replicas are stuck: check their logs and the GPUs.",
                "ops",
                {"predictions": rate("ray_serve_batches_processed_total")},
            ),
            Panel(
                "Time in a batch, p95",
                "Waiting is for more frames, at most batch_wait_timeout_s; execution is the model. If waiting exceeds "
                "execution, the timeout is too long for this load.",
                "ms",
                {
                    "waiting": quantile(0.95, "ray_serve_batch_wait_time_ms"),
                    "execution": quantile(0.95, "ray_serve_batch_execution_time_ms"),
                },
            ),
        ),
    },
)
