"""How our panels and dashboards look: the few kinds of them, each made from a title, an explanation and queries.

A query is PromQL with `{}` where the dashboard's choice of service, provider and model goes; what has none of these
labels is written without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import bargauge, common, dashboard, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog import builder, variants
from grafana_foundation_sdk.models import common as models
from grafana_foundation_sdk.models import dashboard as boards
from grafana_foundation_sdk.models import prometheus as prometheus_models

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grafana_foundation_sdk.cog.builder import Builder

PROMETHEUS: Final = boards.DataSourceRef(type_val="prometheus", uid="prometheus")
JAEGER: Final = boards.DataSourceRef(type_val="jaeger", uid="jaeger")

CHOSEN: Final = 'job=~"$service",gen_ai_provider_name=~"$provider",gen_ai_response_model=~"$model"'
"""The dashboard's choice, as label matchers."""

USD: Final = "currencyUSD"
SECONDS: Final = "s"
SHARE: Final = "percentunit"
COUNT: Final = "short"

LETTERS: Final = "ABCDEFGHIJ"
"""Names of a panel's queries, as Grafana gives them."""

WIDTH: Final = 24
"""Columns of a dashboard."""
LOW: Final = 4
HIGH: Final = 8
"""Heights of panels: of one figure, of a chart."""
MOST: Final = 12
"""Series in a chart: more cannot be told apart."""

DAY: Final = "now/d"
MONTH: Final = "now/M"
"""Times that a panel can have of its own: today so far, this month so far."""


def chosen(promql: str) -> str:
    """Put the dashboard's choice in the place of each `{}` and `{,`."""
    return promql.replace("{}", f"{{{CHOSEN}}}").replace("{,", f"{{{CHOSEN},")


def query(promql: str, legend: str = "", *, exemplars: bool = False) -> prometheus.Dataquery:
    """Make a query over the dashboard's time."""
    return (
        prometheus.Dataquery()
        .datasource(PROMETHEUS)
        .editor_mode(prometheus_models.QueryEditorMode.CODE)
        .expr(chosen(promql))
        .legend_format(legend or "__auto")
        .exemplar(exemplars)
        .ref_id(LETTERS[0])
        .range()
    )


def at_end(promql: str, legend: str = "") -> prometheus.Dataquery:
    """Make a query for the figure at the end of the dashboard's time."""
    return query(promql, legend).instant()


def figure(  # noqa: PLR0913 - what tells one figure from another
    title: str,
    promql: str,
    unit: str,
    says: str,
    *,
    width: int = 4,
    time: str | None = None,
    warn: float | None = None,
    alarm: float | None = None,
) -> stat.Panel:
    """Make one number.

    Args:
        title: What it is.
        promql: How it is got.
        unit: Grafana's name of the unit.
        says: What the reader has to know of it.
        width: In columns.
        time: The panel's own time, instead of the dashboard's.
        warn: From where on it is yellow.
        alarm: From where on it is red.
    """
    steps = [boards.Threshold(value=None, color="green")]
    steps += [
        boards.Threshold(value, color) for value, color in ((warn, "yellow"), (alarm, "red")) if value is not None
    ]
    panel = (
        stat.Panel()
        .title(title)
        .description(says)
        .datasource(PROMETHEUS)
        .unit(unit)
        .no_value("none")
        .thresholds(dashboard.ThresholdsConfig().mode(boards.ThresholdsMode.ABSOLUTE).steps(steps))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .graph_mode(models.BigValueGraphMode.NONE)
        .color_mode(models.BigValueColorMode.VALUE)
        .with_target(at_end(promql, title))
        .height(LOW)
        .span(width)
    )
    return panel if time is None else panel.time_from(time)


def chart(  # noqa: PLR0913 - what tells one chart from another
    title: str,
    queries: Mapping[str, str],
    unit: str,
    says: str,
    *,
    width: int = 12,
    bars: bool = False,
    exemplars: bool = False,
) -> timeseries.Panel:
    """Make lines over time, or stacked bars of what each interval brought.

    Args:
        title: What it is.
        queries: PromQL by legend.
        unit: Grafana's name of the unit.
        says: What the reader has to know of it.
        width: In columns.
        bars: Stacked bars.
        exemplars: Show exemplars, which lead to traces.
    """
    panel = (
        timeseries.Panel()
        .title(title)
        .description(says)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .no_value("none")
        .legend(
            common.VizLegendOptions()
            .display_mode(models.LegendDisplayMode.TABLE)
            .placement(models.LegendPlacement.BOTTOM)
            .show_legend(show_legend=True)
            .calcs(["sum"] if bars else ["mean", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI).sort(models.SortOrder.DESCENDING))
        .height(HIGH)
        .span(width)
    )
    for letter, (legend, promql) in zip(LETTERS, queries.items(), strict=False):
        panel = panel.with_target(query(promql, legend, exemplars=exemplars).ref_id(letter))
    if not bars:
        return panel.show_points(models.VisibilityMode.AUTO).fill_opacity(5)
    return (
        panel.draw_style(models.GraphDrawStyle.BARS)
        .fill_opacity(80)
        .line_width(0)
        .stacking(common.StackingConfig().mode(models.StackingMode.NORMAL))
        .interval("1m")  # an application exports once a minute: shorter bars would be gaps and peaks
    )


def ranking(title: str, promql: str, legend: str, unit: str, says: str) -> bargauge.Panel:
    """Make bars, the longest first, of what the dashboard's whole time brought."""
    return (
        bargauge.Panel()
        .title(title)
        .description(says)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .no_value("none")
        .orientation(models.VizOrientation.HORIZONTAL)
        .display_mode(models.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(at_end(f"sort_desc(topk({MOST}, {promql}))", legend))
        .height(HIGH)
        .span(WIDTH // 2)
    )


def listing(title: str, columns: Mapping[str, str], says: str, *, width: int = 12) -> table.Panel:
    """Make a table with a row for each set of labels, and a column for each query.

    Args:
        title: What it is.
        columns: PromQL by the title of its column; all have the same labels.
        says: What the reader has to know of it.
        width: In columns of the dashboard.
    """
    panel = (
        table.Panel()
        .title(title)
        .description(says)
        .datasource(PROMETHEUS)
        .no_value("none")
        .filterable(filterable=True)
        .height(HIGH)
        .span(width)
    )
    names: dict[str, object] = {}
    for letter, (column, promql) in zip(LETTERS, columns.items(), strict=False):
        target = at_end(promql).format(prometheus_models.PromQueryFormat.TABLE).ref_id(letter)
        panel = panel.with_target(target)
        names[f"Value #{letter}" if len(columns) > 1 else "Value"] = column
    hidden: dict[str, object] = {"Time": True, "__name__": True}
    return panel.with_transformation(boards.DataTransformerConfig(id_val="merge", options={})).with_transformation(
        boards.DataTransformerConfig(
            id_val="organize", options={"excludeByName": hidden, "renameByName": names, "indexByName": {}}
        )
    )


def clouds(title: str, promql: str, unit: str, says: str, *, width: int = 24) -> heatmap.Panel:
    """Make a heat map of a histogram's buckets over time, with its exemplars."""
    target = query(promql, "{{le}}", exemplars=True).format(prometheus_models.PromQueryFormat.HEATMAP)
    return (
        heatmap.Panel()
        .title(title)
        .description(says)
        .datasource(PROMETHEUS)
        .no_value("none")
        .calculate(calculate=False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .exemplars_color("rgba(255,0,255,0.7)")
        .with_target(target)
        .height(HIGH + LOW)
        .span(width)
    )


class JaegerSearch(builder.Builder["JaegerQuery"]):
    """A search in Jaeger: the SDK has no type for this data source's queries."""

    def __init__(self, service: str, tags: str, limit: int) -> None:
        self._query = JaegerQuery(service, tags, limit)

    def build(self) -> JaegerQuery:
        """Return the query."""
        return self._query


class JaegerQuery(variants.Dataquery):
    """What Grafana's Jaeger data source reads (`JaegerQuery` in public/app/plugins/datasource/jaeger/types.ts)."""

    def __init__(self, service: str, tags: str, limit: int) -> None:
        self.service, self.tags, self.limit = service, tags, limit

    def to_json(self) -> dict[str, object]:
        """Return the query as JSON values."""
        return {
            "datasource": JAEGER,
            "limit": self.limit,
            "queryType": "search",
            "refId": LETTERS[0],
            "service": self.service,
            "tags": self.tags,
        }


def searched(title: str, tags: str, says: str, *, width: int = 12) -> table.Panel:
    """Make a list of traces in Jaeger whose spans have these attributes, of the chosen service."""
    return (
        table.Panel()
        .title(title)
        .description(says)
        .datasource(JAEGER)
        .no_value("none")
        .with_target(JaegerSearch("$service", tags, 50))
        .height(HIGH)
        .span(width)
    )


def choice(name: str, label: str, values: str, *, several: bool = True) -> dashboard.QueryVariable:
    """Make a variable to choose from, whose values are those of a label."""
    variable = (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .query(values)
        .refresh(boards.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(boards.VariableSort.ALPHABETICAL_ASC)
    )
    return variable.multi(multi=True).include_all(include_all=True).all_value(".*") if several else variable


def board(uid: str, title: str, says: str, variables: list[Builder[boards.VariableModel]]) -> dashboard.Dashboard:
    """Make a dashboard without panels, with links to the others."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(says)
        .tags(["tollspan"])
        .timezone("browser")
        .time("now-24h", "now")
        .refresh("1m")
        .tooltip(boards.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(
            dashboard.DashboardLink("tollspan")
            .type(boards.DashboardLinkType.DASHBOARDS)
            .tags(["tollspan"])
            .include_vars(include_vars=True)
            .keep_time(keep_time=True)
        )
    )
    for variable in variables:
        made = made.with_variable(variable)
    return made


def choices() -> list[Builder[boards.VariableModel]]:
    """Return the variables that every dashboard has: service, provider, model."""
    return [
        choice("service", "Service", "label_values(tollspan_calls_total, job)"),
        choice("provider", "Provider", 'label_values(tollspan_calls_total{job=~"$service"}, gen_ai_provider_name)'),
        choice(
            "model",
            "Model",
            'label_values(tollspan_calls_total{job=~"$service",gen_ai_provider_name=~"$provider"}, '
            "gen_ai_response_model)",
        ),
    ]
