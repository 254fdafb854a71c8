"""The report's plots, as SVG elements: ratios with their intervals, and latencies."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from loadtest import _verdict, _workload
from loadtest._table import against, ordered

INK, FAINT, GRID = "#1f2933", "#9aa5b1", "#e4e7eb"
BETTER, WORSE, SAME = "#0b7a4b", "#c0392b", "#52606d"
#: Percentile -> how strongly it is drawn.
MARKS: Final = {"p50": 1.0, "p90": 0.75, "p99": 0.55, "p99.9": 0.35}
STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text: it can be searched and copied
    "svg.hashsalt": "pollmark",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,
}


def ratios(load: Mapping[str, Any]) -> str:
    """Throughput and CPU per message, each as a ratio to the baseline with its interval."""
    rows = [one for one in ordered(load) if one["ratio"] or one["cost"]]
    if len(rows) < 2:
        return ""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 0.34 * len(rows) + 1.1), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        versus, words = against(load), _workload.of(load)
        cpu = f"{words.party} CPU per {words.unit}"
        _ratio_panel(left, rows, "ratio", f"throughput, {versus}  (right is better)", words)
        _ratio_panel(right, rows, "cost", f"{cpu}, {versus}  (left is better)", words)
        _labels(left, rows)
        return _svg(figure)


def latencies(load: Mapping[str, Any]) -> str:
    """Each row's percentiles and maximum on one logarithmic axis."""
    rows = [one for one in ordered(load) if one["p50"]]
    if not rows:
        return ""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 0.34 * len(rows) + 1.3), layout="constrained")
        axes = figure.subplots()
        for place, one in enumerate(rows):
            axes.plot([one["p50"] / 1e3, one["max"] / 1e3], [place, place], color=GRID, zorder=1)
        for name, strength in MARKS.items():
            values = [one[name] / 1e3 for one in rows]
            axes.scatter(
                values, range(len(rows)), s=46, color=INK, alpha=strength, label=name, zorder=3
            )
        axes.scatter(
            [one["max"] / 1e3 for one in rows],
            range(len(rows)),
            s=40,
            marker="|",
            color=WORSE,
            label="max",
            zorder=3,
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
        words = _workload.of(load)
        axes.set_xlabel(f"milliseconds from {words.begin} to {words.answer}", loc="left")
        axes.legend(ncols=5, frameon=False, loc="lower left", bbox_to_anchor=(0, 1), fontsize=9)
        _tidy(axes)
        _labels(axes, rows)
        return _svg(figure)


def _ratio_panel(
    axes: Any,
    rows: Sequence[Mapping[str, Any]],
    name: str,
    title: str,
    words: _workload.Workload,
) -> None:
    axes.axvline(1, color=FAINT, linewidth=1, zorder=1)
    for place, one in enumerate(rows):
        value = one[name]
        if value is None:
            continue
        color, filled = _look(one, name, words)
        axes.plot([value["low"], value["high"]], [place, place], color=color, linewidth=2.2)
        axes.scatter(
            [value["median"]],
            [place],
            s=38,
            color=color if filled else "white",
            edgecolors=color,
            zorder=3,
        )
        axes.annotate(
            f"{value['median']:.2f}",
            (max(value["high"], value["median"]), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
            color=color,
        )
    _scale(axes, [one[name] for one in rows if one[name]])
    axes.set_title(title, loc="left", fontsize=10)
    _tidy(axes)


def _scale(axes: Any, values: Sequence[Mapping[str, Any]]) -> None:
    """Logarithmic where ratios are far apart: half and double are then equally far from 1."""
    low = min(value["low"] for value in values)
    high = max(value["high"] for value in values)
    if high / low > 3:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(LogLocator(base=2))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(low / 1.15, high * (high / low) ** 0.14)
    else:
        room = (high - low) or 0.1
        axes.set_xlim(low - 0.05 * room, high + 0.16 * room)


def _look(one: Mapping[str, Any], name: str, words: _workload.Workload) -> tuple[str, bool]:
    """Colour, and whether the mark is filled: hollow is "not ranked by this"."""
    if one["key"] in (words.baseline, words.control):
        return SAME, True
    if one["status"] != "ok" and not (one["status"] == "client-bound" and name == "cost"):
        return FAINT, False
    word = _verdict.difference(one[name], name)
    return {"better": BETTER, "worse": WORSE}.get(word, SAME), True


def _labels(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    axes.set_yticks(range(len(rows)), [one["label"] for one in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)  # the best on top


def _tidy(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0)
    axes.grid(axis="x", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)


def _svg(figure: Figure) -> str:
    """The figure as an <svg> element without the XML prologue, scaling with the page."""
    output = io.StringIO()
    figure.savefig(output, format="svg", metadata={"Date": None, "Creator": None})
    text = output.getvalue()
    return text[text.index("<svg") :].strip()
