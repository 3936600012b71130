"""Cluster: GPUs, memory and disk of the pods, and the head."""

from helm.dashboards.panel import Dashboard, Panel, total

BY_POD = "component, pod"
SHARED_USED = total("ray_object_store_used_memory", BY_POD)
SHARED_FREE = total("ray_object_store_available_memory", BY_POD)

DASHBOARD = Dashboard(
    name="cluster",
    title="roadseg: Cluster",
    description="GPUs, CPUs, memory and the heads of serving and training.",
    rows={
        "GPUs": (
            Panel(
                "GPU utilisation",
                "If it is low while requests wait, too few CPUs decode pictures or batches are small: see Serving and "
                "Autoscaling. Empty without GPUs.",
                "percent",
                {"{{component}} {{pod}} {{GpuIndex}}": total("ray_node_gpus_utilization", "component, pod, GpuIndex")},
                width=12,
            ),
            Panel(
                "GPU memory",
                "If it is almost full, a larger batch or a second replica runs out of memory. Empty without GPUs.",
                "decmbytes",
                {
                    "{{component}} {{pod}} {{GpuIndex}} used": total("ray_node_gram_used", "component, pod, GpuIndex"),
                    "{{component}} {{pod}} {{GpuIndex}} free": total(
                        "ray_node_gram_available", "component, pod, GpuIndex"
                    ),
                },
                width=12,
            ),
        ),
        "Pods": (
            Panel(
                "CPU",
                "Share of the pod's CPUs. At 100 % in serving pods, use more or larger pods.",
                "percent",
                {"{{component}} {{pod}}": total("ray_node_cpu_utilization", BY_POD, how="max")},
            ),
            Panel(
                "Memory",
                "Share of the pod's limit. Above 90 %, Ray kills processes or Kubernetes the pod: raise the limit, or "
                "find what grows.",
                "percentunit",
                {
                    "{{component}} {{pod}}": f"{total('ray_node_mem_used', BY_POD, how='max')}"
                    f" / {total('ray_node_mem_total', BY_POD, how='max')}"
                },
            ),
            Panel(
                "Memory by process type",
                "If it grows for hours under the same load, there is a leak; ray::ServeReplica names the stage.",
                "bytes",
                {"{{component}} {{Component}}": total("ray_component_rss_bytes", "component, Component")},
            ),
            Panel(
                "Disk",
                "Share of the machine's disk. Pods are evicted if it is nearly full; emptyDirs hold models and logs.",
                "percent",
                {"{{component}} {{pod}}": total("ray_node_disk_utilization_percentage", BY_POD, how="max")},
            ),
            Panel(
                "Ray's object store",
                "When it is full, Ray spills to disk and everything slows down: give the pods more memory.",
                "percentunit",
                {"{{component}} {{pod}}": f"{SHARED_USED} / ({SHARED_USED} + {SHARED_FREE})"},
            ),
            Panel(
                "CPUs used and available in Ray",
                "If none are available while replicas wait to start, use more or larger worker pods.",
                "short",
                {"{{component}} {{State}}": total("ray_resources", "component, State", 'Name="CPU"')},
            ),
        ),
        "Head and scraping": (
            Panel(
                "Event loop lag of the head's dashboard",
                "Above a second, jobs and the operator's requests time out: give the head more CPU.",
                "s",
                {"{{component}}": total("ray_dashboard_event_loop_lag_seconds", "component", how="max")},
            ),
            Panel(
                "Memory of the head's GCS",
                "Grows with past jobs and actors. At half of the head's memory limit, replace the head.",
                "bytes",
                {"{{component}}": total("ray_component_rss_bytes", "component", 'Component="gcs"', how="max")},
            ),
            Panel(
                "Serving pods with a healthy proxy",
                "If there are fewer than pods, kubectl describe shows which are not ready, and why.",
                "short",
                {"healthy": "count(ray_serve_proxy_status{OURS} == 2)"},
            ),
            Panel(
                "Share of reachable scrape targets",
                "Below 1: a pod is starting or stopping, or the NetworkPolicy blocks Prometheus "
                "(networkPolicy.monitoringNamespace).",
                "percentunit",
                {"{{component}}": total("up", "component", how="avg")},
            ),
        ),
    },
)
