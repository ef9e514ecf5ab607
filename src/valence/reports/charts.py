"""Charts of a page, read off the figures that are also written as PNG files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.category import StrCategoryFormatter
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation
from matplotlib.ticker import FixedLocator

DIGITS = 4  # of a number in a page
MOST_DECADES = 3  # of a logarithmic axis with places between its powers of ten
DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
Chart = dict[str, Any]


def charts_of(title: str, figure: Figure) -> list[Chart]:
    """One chart for each pair of axes that holds lines, bars or points.

    Args:
        title: Of the figure; axes with a title of their own have it behind.
        figure: Drawn with matplotlib. Images, as of a confusion matrix, are no charts.
    """
    charts = []
    for axes in figure.axes:
        traces = _traces(axes)
        if not traces:
            continue
        own = axes.get_title() or (axes.get_title(loc="left") if len(figure.axes) > 1 else "")
        chart: Chart = {
            "title": f"{title}: {own}" if own else title, "traces": traces,
            "xaxis": _axis(axes, "x"), "yaxis": _axis(axes, "y"),
        }  # fmt: skip
        if names := _names(axes):
            chart["names"] = names
        charts.append(chart)
    return charts


def _traces(axes: Axes) -> list[dict[str, Any]]:
    bars = [c for c in axes.containers if isinstance(c, BarContainer)]
    errors = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    inside = {id(c.lines[0]) for c in errors} | {id(cap) for c in errors for cap in c.lines[1]}
    ticks = _tick_names(axes, "x") or _tick_names(axes, "y")
    traces = [_bar(bar, ticks) for bar in bars]
    traces += [_error_line(container) for container in errors]
    for line in axes.lines:
        if id(line) not in inside and line.get_transform() == axes.transData:
            traces.append(_line(line))
    for points in axes.collections:
        if isinstance(points, PathCollection):
            traces.append(_points(points, _names(axes)))
    return traces


def _line(line: Line2D) -> dict[str, Any]:
    label = str(line.get_label())
    named = not label.startswith("_")
    color = to_hex(line.get_color())
    marked = line.get_marker() not in ("None", "", None)
    trace: dict[str, Any] = {
        "type": "scatter", "mode": "lines+markers" if marked else "lines",
        "x": _values(line.get_xdata()), "y": _values(line.get_ydata()),
        "line": {"color": color, "width": 2 if named else 1,
                 "dash": DASHES.get(str(line.get_linestyle()), "solid")},
        "marker": {"color": color, "size": 6}, "showlegend": named,
    }  # fmt: skip
    if named:
        return trace | {
            "name": label,
            "hovertemplate": _hover(label),
        }
    return trace | {"hoverinfo": "skip"}


def _error_line(container: ErrorbarContainer) -> dict[str, Any]:
    trace = _line(container.lines[0])
    segments = container.lines[2][0].get_segments() if container.lines[2] else []
    heights = [float(part[1][1] - part[0][1]) / 2 for part in segments]
    label = str(container.get_label())
    return trace | {
        "name": label, "showlegend": True, "error_y": {"array": _values(heights), "thickness": 1},
        "hovertemplate": _hover(label), "hoverinfo": "all",
    }  # fmt: skip


def _bar(container: BarContainer, ticks: dict[float, str]) -> dict[str, Any]:
    patches = list(container.patches)
    flat = container.orientation == "horizontal"
    places = [
        p.get_y() + p.get_height() / 2 if flat else p.get_x() + p.get_width() / 2 for p in patches
    ]
    lengths = [p.get_width() if flat else p.get_height() for p in patches]
    sizes = [p.get_height() if flat else p.get_width() for p in patches]
    near = [ticks[min(ticks, key=lambda tick: abs(tick - at))] if ticks else "" for at in places]
    label = str(container.get_label())
    named = not label.startswith("_")
    x, y = (lengths, places) if flat else (places, lengths)
    words = f"{_plain(label)}<br>" if named else ""
    number = "%{x:.3f}" if flat else "%{y:.3f}"
    return {
        "type": "bar", "orientation": "h" if flat else "v", "x": _values(x), "y": _values(y),
        "width": _values(sizes), "customdata": [" ".join(name.split()) for name in near],
        "marker": {"color": to_hex(patches[0].get_facecolor()) if patches else "#0072b2"},
        "name": label if named else "", "showlegend": named,
        "hovertemplate": f"{words}%{{customdata}}: {number}<extra></extra>",
    }  # fmt: skip


def _points(points: PathCollection, names: Sequence[str]) -> dict[str, Any]:
    offsets = np.asarray(points.get_offsets(), dtype=float)
    label = str(points.get_label())
    named = not label.startswith("_")
    hover = "%{text}<br>" if names else f"{_plain(label)}<br>" if named else ""
    colors = np.asarray(points.get_facecolor())
    return {
        "type": "scatter", "mode": "markers", "x": _values(offsets[:, 0]),
        "y": _values(offsets[:, 1]), "showlegend": named, "name": label if named else "",
        "marker": {"color": to_hex(colors[0]) if len(colors) else "#0072b2",
                   "size": 9 if names else 5, "opacity": 1 if names else 0.6},
        "hovertemplate": f"{hover}%{{x}}, %{{y:.3f}}<extra></extra>",
        **({"text": list(names)} if names else {}),
    }  # fmt: skip


def _axis(axes: Axes, name: str) -> dict[str, Any]:
    own = axes.xaxis if name == "x" else axes.yaxis
    low, high = axes.get_xlim() if name == "x" else axes.get_ylim()
    log = own.get_scale() == "log"
    axis: dict[str, Any] = {"title": own.get_label_text(), "type": "log" if log else "linear"}
    if log:
        axis |= _log_ticks(low, high)
        low, high = math.log10(low), math.log10(high)
    axis["range"] = [round(low, DIGITS), round(high, DIGITS)]
    if ticks := _tick_names(axes, name):
        axis |= {
            "tickvals": list(ticks),
            "ticktext": [t.replace("\n", "<br>") for t in ticks.values()],
        }
    elif not len(own.get_majorticklocs()):
        axis["showticklabels"] = False
    return axis


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    """Places 1, 2, 5, 10 … of a logarithmic axis, or powers of ten where these are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= MOST_DECADES else (1,)
    ticks = [step * 10.0**power for power in powers for step in steps]
    shown = [tick for tick in ticks if low <= tick <= high]
    return {"tickvals": shown, "ticktext": [f"{tick:,g}" for tick in shown]}


def _tick_names(axes: Axes, name: str) -> dict[float, str]:
    """Names that were given to places of an axis; none where it has numbers."""
    own = axes.xaxis if name == "x" else axes.yaxis
    shown, places = own.get_major_formatter(), np.asarray(own.get_majorticklocs()).tolist()
    is_named = isinstance(own.get_major_locator(), FixedLocator) and own.get_scale() == "linear"
    if not is_named and not isinstance(shown, StrCategoryFormatter):
        return {}
    return dict(zip(places, shown.format_ticks(places), strict=True))


def _names(axes: Axes) -> list[str]:
    """The names beside the points, in their order."""
    return [text.get_text() for text in axes.texts if isinstance(text, Annotation)]


def _hover(label: str) -> str:
    return f"{_plain(label)}<br>%{{x}}: %{{y:.3f}}<extra></extra>"


def _values(values: Any) -> list[Any]:
    """Numbers with few digits, None where one is not defined; names as they are."""
    numbers: list[Any] = []
    for value in np.asarray(values).ravel().tolist():
        if isinstance(value, str):
            numbers.append(value)
        else:
            known = value is not None and math.isfinite(value)
            numbers.append(float(f"{value:.{DIGITS}g}") if known else None)
    return numbers


def _plain(text: str) -> str:
    """A name in Plotly's hover text, which reads tags and %{…}."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")
