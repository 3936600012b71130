"""Training: whether a run makes progress, and what holds it up."""

from helm.dashboards.panel import WINDOW, Dashboard, Panel

OF_RUN = 'OURS, run=~"$run"'
# Ray forgets a gauge 20 seconds after it was set, and a step, or a checkpoint's evaluation, may take longer.
BRIDGE = "5m"


def newest(gauge: str) -> str:
    """What the first worker said last."""
    return f"max by (run) (last_over_time({gauge}{{{OF_RUN}}}[{BRIDGE}]))"


def count(counter: str) -> str:
    """Of all processes that counted: a worker that is started again counts anew."""
    return f"sum by (run) ({counter}{{{OF_RUN}}})"


def of_ray(gauge: str, window: str = BRIDGE) -> str:
    """Ray Train's own, in seconds so far; said only when it grows."""
    return f'max by (ray_train_run_name) (last_over_time({gauge}{{OURS, ray_train_run_name=~"$run"}}[{window}]))'


DASHBOARD = Dashboard(
    name="training",
    title="roadseg: Training",
    description="Whether runs make progress, what they have learnt, and what holds them up.",
    runs=True,
    rows={
        "Learning": (
            Panel(
                "Loss",
                "Falls, then levels out. A jump that stays, or nothing drawn for minutes: stop the run, look at its "
                "log, lower the learning rate; it continues from its newest checkpoint.",
                "none",
                {"{{run}}": newest("ray_roadseg_train_loss")},
            ),
            Panel(
                "Road IoU of the held-out frames",
                "From the newest checkpoint on. Falls while the loss falls: it learns by heart; end the run, take "
                "the best.",
                "percentunit",
                {"{{run}}": newest("ray_roadseg_train_heldout_iou")},
            ),
            Panel(
                "Steps done",
                "Of all. Flat for 15 minutes, an alert comes.",
                "percentunit",
                {"{{run}}": f"{newest('ray_roadseg_train_step')} / {newest('ray_roadseg_train_last_step')}"},
            ),
        ),
        "Speed": (
            Panel(
                "Pictures each second",
                "Over all workers. Half of before is a worker that is gone or a neighbour on its machine.",
                "ops",
                {"{{run}}": newest("ray_roadseg_train_images_per_second")},
            ),
            Panel(
                "Share of the time in which a worker waits for data",
                "Above a tenth: more --loaders, or more CPUs for each worker; GPUs stand still meanwhile.",
                "percentunit",
                {"{{run}}": newest("ray_roadseg_train_data_wait_share")},
            ),
            Panel(
                "Steps each second",
                "Counted, not measured: 0 in a checkpoint, and where a run is stuck.",
                "ops",
                {"{{run}}": f"sum by (run) (rate(ray_roadseg_train_steps_total{{{OF_RUN}}}[{WINDOW}]))"},
            ),
        ),
        "Faults": (
            Panel(
                "Checkpoints written",
                "Since each worker started. None for long: what is lost with a worker grows; look at S3.",
                "short",
                {"{{run}}": count("ray_roadseg_train_checkpoints_total")},
            ),
            Panel(
                "Starts of the workers",
                "1 for the start. Each more is a group of workers that failed: the job's log says of what; three "
                "without a checkpoint between them end the run.",
                "short",
                {"{{run}}": count("ray_roadseg_train_starts_total")},
            ),
            Panel(
                "Seconds spent starting workers",
                "Mostly waiting for machines. Minutes: raise training.workers.minReplicas before a series of runs.",
                "s",
                {"{{ray_train_run_name}}": of_ray("ray_train_worker_group_start_total_time_s", "1h")},
            ),
            Panel(
                "Seconds spent reporting",
                "In which workers wait for each other at checkpoints. Growing fast: one is much slower than the "
                "others.",
                "s",
                {"{{ray_train_run_name}}": of_ray("ray_train_report_total_blocked_time_s", "1h")},
            ),
        ),
    },
)
