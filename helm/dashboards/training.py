"""Training: whether a run makes progress, and what slows it down."""

from helm.dashboards.panel import WINDOW, Dashboard, Panel

OF_RUN = 'OURS, run=~"$run"'
# Ray drops a gauge 20 seconds after it was last set; a step or a checkpoint's evaluation may take longer.
BRIDGE = "5m"


def newest(gauge: str) -> str:
    """The last value from the first worker."""
    return f"max by (run) (last_over_time({gauge}{{{OF_RUN}}}[{BRIDGE}]))"


def count(counter: str) -> str:
    """A counter summed over processes, because a restarted worker starts from 0."""
    return f"sum by (run) ({counter}{{{OF_RUN}}})"


def of_ray(gauge: str, window: str = BRIDGE) -> str:
    """One of Ray Train's own metrics, in total seconds; it is only reported when it grows."""
    return f'max by (ray_train_run_name) (last_over_time({gauge}{{OURS, ray_train_run_name=~"$run"}}[{window}]))'


DASHBOARD = Dashboard(
    name="training",
    title="roadseg: Training",
    description="Whether runs make progress, how well they learn, and what slows them down.",
    runs=True,
    rows={
        "Learning": (
            Panel(
                "Loss",
                "Should fall, then level out. If it jumps and stays up, or is missing for minutes, stop the run, check "
                "its log and lower the learning rate; it resumes from its newest checkpoint.",
                "none",
                {"{{run}}": newest("ray_roadseg_train_loss")},
            ),
            Panel(
                "Road IoU of the held-out frames",
                "Of the newest checkpoint. If it falls while the loss falls, the model overfits: stop the run and use "
                "the best checkpoint.",
                "percentunit",
                {"{{run}}": newest("ray_roadseg_train_heldout_iou")},
            ),
            Panel(
                "Progress",
                "Steps done out of all. If it stays flat, RoadsegTrainingStalled fires.",
                "percentunit",
                {"{{run}}": f"{newest('ray_roadseg_train_step')} / {newest('ray_roadseg_train_last_step')}"},
            ),
        ),
        "Speed": (
            Panel(
                "Pictures per second",
                "Over all workers. If it halves, a worker is gone or shares its machine with other work.",
                "ops",
                {"{{run}}": newest("ray_roadseg_train_images_per_second")},
            ),
            Panel(
                "Share of time spent waiting for data",
                "GPUs are idle meanwhile. Above 10 %, use more --loaders or more CPUs per worker.",
                "percentunit",
                {"{{run}}": newest("ray_roadseg_train_data_wait_share")},
            ),
            Panel(
                "Steps per second",
                "0 during a checkpoint, or if the run is stuck.",
                "ops",
                {"{{run}}": f"sum by (run) (rate(ray_roadseg_train_steps_total{{{OF_RUN}}}[{WINDOW}]))"},
            ),
        ),
        "Faults": (
            Panel(
                "Checkpoints written",
                "Since each worker started. If none comes for long, check S3: a lost worker would cost more steps.",
                "short",
                {"{{run}}": count("ray_roadseg_train_checkpoints_total")},
            ),
            Panel(
                "Worker starts",
                "1, plus one for each failure of the workers; the job's log says why. Three failures without a "
                "checkpoint in between end the run.",
                "short",
                {"{{run}}": count("ray_roadseg_train_starts_total")},
            ),
            Panel(
                "Seconds spent starting workers",
                "Mostly waiting for machines. If it is minutes, raise training.workers.minReplicas before more runs.",
                "s",
                {"{{ray_train_run_name}}": of_ray("ray_train_worker_group_start_total_time_s", "1h")},
            ),
            Panel(
                "Seconds spent waiting at checkpoints",
                "Workers wait for each other at checkpoints. If it grows fast, one is much slower than the others.",
                "s",
                {"{{ray_train_run_name}}": of_ray("ray_train_report_total_blocked_time_s", "1h")},
            ),
        ),
    },
)
