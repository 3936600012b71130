"""Autoscaling: what Ray wants, what it may have, and what it has got."""

from helm.dashboards.panel import Dashboard, Panel, quantile, rate, total

WANTED = total("ray_serve_autoscaling_desired_replicas", "deployment", how="max")
ALLOWED = total("ray_serve_autoscaling_target_replicas", "deployment", how="max")
HEALTHY = "ray_serve_deployment_replica_healthy"


def so_far(share: float, histogram: str, by: str) -> str:
    """A quantile of everything since the controller started: events that are too rare for a rate."""
    return f"histogram_quantile({share}, sum by (le, {by}) ({histogram}_bucket{{OURS}}))"


DASHBOARD = Dashboard(
    name="autoscaling",
    title="roadseg: Autoscaling",
    description="Whether there are as many replicas and pods as the load needs, and if not, what they wait for.",
    rows={
        "Replicas": (
            Panel(
                "Replicas: desired, target, actual",
                "Desired is what the load asks for, target what the bounds allow, actual what answers. Actual below "
                "target: they do not start, see below. Target below desired: see the next panel.",
                "short",
                {
                    "{{deployment}} desired": WANTED,
                    "{{deployment}} target": ALLOWED,
                    "{{deployment}} actual": f"sum by (deployment) ({HEALTHY}{{OURS}} == 1)",
                },
                width=16,
            ),
            Panel(
                "Replicas that the bounds deny",
                "Above 0: raise app.predict.autoscaling_config.max_replicas, and serve.workers.maxReplicas for pods "
                "to put them in. Below 0: min_replicas keeps more than the load needs.",
                "short",
                {"{{deployment}}": f"{WANTED} - {ALLOWED}"},
            ),
            Panel(
                "Requests that the autoscaler counts",
                "Waiting and in work, over all replicas. This over the wished number of each is what is desired.",
                "short",
                {
                    "{{deployment}} counted": total("ray_serve_autoscaling_total_requests", "deployment", how="max"),
                    "{{deployment}} wished of each": total(
                        "ray_serve_autoscaling_target_ongoing_requests", "deployment", how="max"
                    ),
                },
            ),
            Panel(
                "Age of what the autoscaler knows, 95 % are below",
                "Ten seconds are usual. More is a head that is overloaded: give it CPU and memory.",
                "ms",
                {"{{deployment}}": quantile(0.95, "ray_serve_autoscaling_handle_metrics_delay_ms", "deployment")},
            ),
            Panel(
                "State of each deployment",
                "6 is healthy. 1 waits (for room, or an image), 5 is unhealthy: the message is in the RayService's "
                "status.",
                "none",
                {"{{deployment}}": total("ray_serve_deployment_status", "deployment", how="min")},
            ),
        ),
        "Starting": (
            Panel(
                "Time until a replica answers, 95 % are below",
                "Of all starts since the controller's own. Whole is from the decision on, own is loading and warming "
                "up the model. A large difference is waiting for pods and images; a large own is a slow S3 or a "
                "large model.",
                "ms",
                {
                    "{{deployment}} whole": so_far(0.95, "ray_serve_replica_startup_latency_ms", "deployment"),
                    "{{deployment}} own": so_far(0.95, "ray_serve_replica_initialization_latency_ms", "deployment"),
                },
                width=12,
            ),
            Panel(
                "Starts of replicas",
                "Since each node began. It grows with changes and load; growth without either is replicas that die: "
                "look at their logs, and whether pods are killed for memory.",
                "short",
                {"{{deployment}}": total("ray_serve_deployment_replica_starts_total", "deployment")},
                width=12,
            ),
        ),
        "Pods": (
            Panel(
                "Pods of Ray, by kind",
                "Ray's autoscaler asks Kubernetes for them. Pending for long: no machine has room, see kubectl "
                "describe pod.",
                "short",
                {
                    "{{component}} {{NodeType}} active": total("autoscaler_active_nodes", "component, NodeType"),
                    "{{component}} {{NodeType}} pending": total("autoscaler_pending_nodes", "component, NodeType"),
                },
                width=12,
            ),
            Panel(
                "Pods started and ended",
                "Both growing together is flapping: raise serve.idleTimeoutSeconds or the autoscaler's "
                "downscale_delay_s.",
                "short",
                {
                    "{{component}} started": total("autoscaler_started_nodes_total", "component"),
                    "{{component}} ended": total("autoscaler_stopped_nodes_total", "component"),
                    "{{component}} could not be made": total("autoscaler_failed_create_nodes_total", "component"),
                },
                width=12,
            ),
        ),
        "Batches": (
            Panel(
                "Frames in one prediction",
                "1 under load: max_batch_size or batch_wait_timeout_s is too small, or requests come one by one.",
                "short",
                {
                    "half are below": quantile(0.5, "ray_roadseg_batch_size"),
                    "95 % are below": quantile(0.95, "ray_roadseg_batch_size"),
                },
            ),
            Panel(
                "How full batches are",
                "Of max_batch_size. Always 100 % with requests that wait: a larger batch or more replicas would help.",
                "percent",
                {"half are below": quantile(0.5, "ray_serve_batch_utilization_percent")},
            ),
            Panel(
                "Predictions each second",
                "Falls while requests wait: the model's replicas are stuck; look at their logs and at the GPUs.",
                "ops",
                {"predictions": rate("ray_serve_batches_processed_total")},
            ),
            Panel(
                "Time in a batch, 95 % are below",
                "Waiting is for companions, at most batch_wait_timeout_s; execution is the model. Waiting that "
                "exceeds execution is a timeout too long for this load.",
                "ms",
                {
                    "waiting": quantile(0.95, "ray_serve_batch_wait_time_ms"),
                    "execution": quantile(0.95, "ray_serve_batch_execution_time_ms"),
                },
            ),
        ),
    },
)
