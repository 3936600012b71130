"""Model: which version is served, and whether its inputs or results have drifted."""

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
    description="Which version is served, and whether its results have drifted.",
    rows={
        "Version": (
            Panel(
                "Replicas by loaded version",
                "Two versions for some minutes: an update in place. For longer: the new one does not start, and the "
                "RayService's status says why. None: no upload can be answered.",
                "short",
                {"{{model}} {{version}}": total("ray_roadseg_model_loaded", "model, version")},
                width=12,
            ),
            Panel(
                "State of the application",
                "6 is running, 1 and 2 are an update in progress, 3 is a failed update: the previous version keeps "
                "serving; deploy it or another good one.",
                "none",
                {"{{application}}": total("ray_serve_application_status", "application", how="min")},
            ),
        ),
        "Results": (
            Panel(
                "Road share of a picture",
                "If a percentile shifts for hours, cameras, streets or the model have changed: compare pictures from "
                "before and after, and evaluate on them.",
                "percentunit",
                {
                    "p10": quantile(0.1, SHARE),
                    "p50": quantile(0.5, SHARE),
                    "p90": quantile(0.9, SHARE),
                },
            ),
            Panel(
                "Median road share minus that of the last day",
                "Day and night differ. If a step remains after a model update, the model caused it: helm rollback.",
                "percentunit",
                {"{{model}} {{version}}": f"{quantile(0.5, SHARE, 'model, version')} - {DAY}"},
            ),
            Panel(
                "Share of pictures with less than 1 % road",
                "A jump means a covered or turned camera, or pictures that do not show streets.",
                "percentunit",
                {"{{model}} {{version}}": NEARLY_NONE},
            ),
        ),
        "Inputs": (
            Panel(
                "Refused uploads per second, by reason",
                "upload-too-large and image-too-large: raise app.max_upload_bytes or app.max_pixels to accept them. "
                "not-an-image: a client sends something else.",
                "reqps",
                {"{{reason}}": rate("ray_roadseg_rejected_uploads_total", "reason")},
                width=12,
            ),
            Panel(
                "Answered pictures per second",
                "By version; during an update both answer.",
                "reqps",
                {"{{model}} {{version}}": rate(f"{SHARE}_count", "model, version")},
                width=12,
            ),
        ),
    },
)
