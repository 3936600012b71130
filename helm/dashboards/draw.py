"""Turn a dashboard into Grafana's JSON."""

import json
import warnings

with warnings.catch_warnings():
    # Only the newest Grafana reads the second version of its dashboard format.
    warnings.filterwarnings("ignore", "Prefer using dashboardv2", DeprecationWarning)
    from grafana_foundation_sdk.builders import common, dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import DataSourceRef
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType, GridPos, VariableRefresh

from helm.dashboards.panel import Dashboard, Panel

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")
OURS = 'namespace="$namespace", release="$release"'
# A metric that every Ray node has.
EVERYWHERE = "ray_node_mem_used"
COLUMNS, HEIGHT = 24, 8


def draw(source: Dashboard) -> str:
    """The dashboard as the text of a Grafana JSON file."""
    result = (
        dashboard.Dashboard(source.title)
        .uid(f"roadseg-{source.name}")
        .description(source.description)
        .tags(["roadseg"])
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .time("now-3h", "now")
        .refresh("30s")
        .readonly()
        .link(
            dashboard.DashboardLink("roadseg")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["roadseg"])
            .keep_time(True)
            .include_vars(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_choice("namespace", EVERYWHERE))
        .with_variable(_choice("release", f'{EVERYWHERE}{{namespace="$namespace"}}'))
    )
    if source.runs:
        runs = _choice("run", f"ray_roadseg_train_steps_total{{{OURS}}}").include_all(True).multi(True)
        result = result.with_variable(runs)
    number, top = 1, 0
    for title, panels in source.rows.items():
        result = result.with_row(dashboard.Row(title).grid_pos(GridPos(h=1, w=COLUMNS, x=0, y=top)).id(number))
        number, top, left = number + 1, top + 1, 0
        for panel in panels:
            if left + panel.width > COLUMNS:
                top, left = top + HEIGHT, 0
            place = GridPos(h=HEIGHT, w=panel.width, x=left, y=top)
            result = result.with_panel(_panel(panel).id(number).grid_pos(place))
            number, left = number + 1, left + panel.width
        top += HEIGHT
    return json.dumps(result.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _choice(label: str, series: str) -> dashboard.QueryVariable:
    """A drop-down list of the values of a label."""
    return (
        dashboard.QueryVariable(label)
        .label(label.capitalize())
        .datasource(SOURCE)
        .query(f"label_values({series}, {label})")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
    )


def _panel(panel: Panel) -> timeseries.Panel:
    # Lines bridge a failed scrape, but not an hour.
    drawn = timeseries.Panel().title(panel.title).description(panel.description).unit(panel.unit).span_nulls(120_000)
    drawn = drawn.datasource(SOURCE).fill_opacity(8).legend(common.VizLegendOptions().show_legend(True))
    for letter, (name, query) in zip("ABCDEFGH", panel.queries.items(), strict=False):
        expression = query.replace("OURS", OURS)
        drawn = drawn.with_target(
            prometheus.Dataquery().expr(expression).legend_format(name).ref_id(letter).datasource(SOURCE).range()
        )
    return drawn
