"""Cluster: the pods under it all: GPUs, memory, and the head."""

from helm.dashboards.panel import Dashboard, Panel, total

BY_POD = "component, pod"
SHARED_USED = total("ray_object_store_used_memory", BY_POD)
SHARED_FREE = total("ray_object_store_available_memory", BY_POD)

DASHBOARD = Dashboard(
    name="cluster",
    title="roadseg: Cluster",
    description="GPUs, CPUs, memory and the head, of serving and of training.",
    rows={
        "GPUs": (
            Panel(
                "How busy GPUs are",
                "Low while requests wait: too few CPUs decode for them, or batches are small; see Serving and "
                "Autoscaling. Empty without GPUs.",
                "percent",
                {"{{component}} {{pod}} {{GpuIndex}}": total("ray_node_gpus_utilization", "component, pod, GpuIndex")},
                width=12,
            ),
            Panel(
                "Memory of GPUs in use",
                "Near all of it, a larger batch or a second replica ends in an error. Empty without GPUs.",
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
                "Of what the pod may use. At 100 % in serving pods: more pods or larger ones.",
                "percent",
                {"{{component}} {{pod}}": total("ray_node_cpu_utilization", BY_POD, how="max")},
            ),
            Panel(
                "Memory in use",
                "Of the pod's limit. Above 90 % Ray ends processes, or the pod is killed: raise limits, or look for "
                "what grows.",
                "percentunit",
                {
                    "{{component}} {{pod}}": f"{total('ray_node_mem_used', BY_POD, how='max')}"
                    f" / {total('ray_node_mem_total', BY_POD, how='max')}"
                },
            ),
            Panel(
                "Memory of processes, by what they are",
                "Grows for hours under the same load: a leak; ray::ServeReplica names the stage.",
                "bytes",
                {"{{component}} {{Component}}": total("ray_component_rss_bytes", "component, Component")},
            ),
            Panel(
                "Disk in use",
                "Of the machine's. Nearly full, pods are evicted: model versions and logs are in emptyDirs.",
                "percent",
                {"{{component}} {{pod}}": total("ray_node_disk_utilization_percentage", BY_POD, how="max")},
            ),
            Panel(
                "Ray's shared memory in use",
                "Full, Ray writes to disk and all gets slow: raise the pods' memory.",
                "percentunit",
                {"{{component}} {{pod}}": f"{SHARED_USED} / ({SHARED_USED} + {SHARED_FREE})"},
            ),
            Panel(
                "CPUs that Ray has given away and has left",
                "None left while replicas wait: more or larger worker pods.",
                "short",
                {"{{component}} {{State}}": total("ray_resources", "component, State", 'Name="CPU"')},
            ),
        ),
        "Head and scraping": (
            Panel(
                "Delay of the head's dashboard",
                "Above a second, jobs and the operator's questions time out: give the head more CPU.",
                "s",
                {"{{component}}": total("ray_dashboard_event_loop_lag_seconds", "component", how="max")},
            ),
            Panel(
                "Memory of the head's records (GCS)",
                "Grows with jobs and actors that were; half of the head's limit is a reason to replace the head.",
                "bytes",
                {"{{component}}": total("ray_component_rss_bytes", "component", 'Component="gcs"', how="max")},
            ),
            Panel(
                "Serving pods whose proxy is well",
                "Fewer than the pods there are: kubectl describe says which are not ready, and why.",
                "short",
                {"well": "count(ray_serve_proxy_status{OURS} == 2)"},
            ),
            Panel(
                "Endpoints that Prometheus reaches",
                "Less than 1: a pod starts or ends, or the NetworkPolicy does not let Prometheus in "
                "(networkPolicy.monitoringNamespace).",
                "percentunit",
                {"{{component}}": total("up", "component", how="avg")},
            ),
        ),
    },
)
