"""Model: what is served, and whether what it sees and finds has changed."""

from helm.dashboards.panel import WINDOW, Dashboard, Panel, quantile, rate, total

SHARE = "ray_roadseg_road_share"
DAY = f"histogram_quantile(0.5, sum by (le, model, version) (rate({SHARE}_bucket{{OURS}}[1d])))"
NEARLY_NONE = (
    f'sum by (model, version) (rate({SHARE}_bucket{{OURS, le="0.01"}}[{WINDOW}]))'
    f" / {rate(f'{SHARE}_count', 'model, version')}"
)

DASHBOARD = Dashboard(
    name="model",
    title="roadseg: Model",
    description="Which version answers, and whether its answers have moved.",
    rows={
        "Version": (
            Panel(
                "Replicas, by the version that they have loaded",
                "Two versions for minutes are a change in place. For long: the new one does not start; the "
                "RayService's status says why. None: nothing can be answered.",
                "short",
                {"{{model}} {{version}}": total("ray_roadseg_model_loaded", "model, version")},
                width=12,
            ),
            Panel(
                "State of the application",
                "6 is running. 1 and 2 are a change under way, 3 a change that failed: the former version serves on; "
                "put it or a good one back.",
                "none",
                {"{{application}}": total("ray_serve_application_status", "application", how="min")},
            ),
        ),
        "What it finds": (
            Panel(
                "Share of a picture that is road",
                "Where the middle or an edge moves for hours, cameras or streets have changed, or the model has: "
                "look at pictures of before and after, and evaluate on them.",
                "percentunit",
                {
                    "a tenth are below": quantile(0.1, SHARE),
                    "half are below": quantile(0.5, SHARE),
                    "nine tenths are below": quantile(0.9, SHARE),
                },
            ),
            Panel(
                "Drift of the middle, against the last day",
                "Day and night differ; a step that stays after a change of the model is the model's. Roll back with "
                "helm rollback.",
                "percentunit",
                {"{{model}} {{version}}": f"{quantile(0.5, SHARE, 'model, version')} - {DAY}"},
            ),
            Panel(
                "Pictures with next to no road",
                "Less than a hundredth. A jump is a covered or turned camera, or pictures that are no streets.",
                "percentunit",
                {"{{model}} {{version}}": NEARLY_NONE},
            ),
        ),
        "What it is given": (
            Panel(
                "Refused uploads each second, by reason",
                "too-large ones: raise app.max_upload_bytes or app.max_pixels if they are wanted. not-an-image: a "
                "client sends something else.",
                "reqps",
                {"{{reason}}": rate("ray_roadseg_rejected_uploads_total", "reason")},
                width=12,
            ),
            Panel(
                "Answered pictures each second",
                "By version: what each answers while both are there.",
                "reqps",
                {"{{model}} {{version}}": rate(f"{SHARE}_count", "model, version")},
                width=12,
            ),
        ),
    },
)
