"""How every plot looks: matplotlib figures in one style, a colour and marker an arm, and SVG that a page can hold."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from socratic.report import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart with any colour vision, and at least 3:1 against white. The page has lighter ones for a dark background.
COLOURS = ("#0072b2", "#d55e00", "#008a64", "#b8528c", "#8a6a00", "#2f8fc4", "#5a50b0", "#6e6e6e")
_MARKERS = "os^DvPX*"
_INK = "#010101"  # not black, which SVG leaves out: the page replaces it by its own text colour
_WIDTH = 4.0  # inches: 384 pixels of the page, so that a plot fits a telephone's screen unscaled
_LABEL = 16  # characters of a name in a plot
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.labelsize": 8.5,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": _INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "figure.facecolor": "white",
    "font.size": 8.5,
    "grid.alpha": 0.15,
    "grid.color": _INK,
    "grid.linewidth": 0.6,
    "lines.linewidth": 1.3,
    "lines.markersize": 5,
    "savefig.dpi": 200,
    "svg.fonttype": "none",
    "text.color": _INK,
    "text.parse_math": False,  # a run may be called $x$
    "xtick.color": _INK,
    "xtick.labelsize": 8,
    "ytick.color": _INK,
    "ytick.labelsize": 8,
}


@dataclass(frozen=True)
class Series:
    """Points of one arm; ``lows`` and ``highs`` are empty where there are no intervals, and ``dashed`` has no name."""

    label: str
    place: int
    xs: Sequence[float]
    ys: Sequence[float]
    lows: Sequence[float] = ()
    highs: Sequence[float] = ()
    dashed: bool = False


def points_figure(title: str, x_label: str, y_label: str, series: Sequence[Series], log: bool = False) -> Figure:
    """Points with intervals, joined where a series has several; every series named at the right edge."""
    from matplotlib.ticker import LogLocator, NullLocator, ScalarFormatter
    from matplotlib.transforms import ScaledTranslation

    height = max(2.9, 1.0 + 0.16 * len(series))
    figure = _figure(title, height)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.14, right=0.65, top=1 - 0.35 / height, bottom=0.6 / height)
    axes.grid(axis="y")
    axes.locator_params(nbins=5)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter=ScalarFormatter())
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel=x_label, ylabel=y_label)
    for number, one in enumerate(series):
        aside = (number - (len(series) - 1) / 2) * 3.2 if one.lows else 0.0  # intervals at one x stand side by side
        moved = axes.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans)
        _draw(axes, one, transform=moved)
        axes.update_datalim([*zip(one.xs, one.ys, strict=True)])
    axes.margins(x=0.15)
    axes.autoscale_view()
    if series[0].highs:
        axes.set_ylim(0, _top(series))
    _name_at_the_edge(axes, series)
    return figure


def panels_figure(title: str, y_label: str, series: Sequence[Series], ticks: Sequence[str]) -> Figure:
    """A panel for each series, two in a row, with the others in grey."""
    lines = (len(series) + 1) // 2
    height = 0.75 + 1.25 * lines
    figure = _figure(title, height)
    panels = figure.subplots(lines, 2, sharex=True, sharey=True, squeeze=False).flat
    figure.subplots_adjust(left=0.14, right=0.98, top=1 - 0.5 / height, bottom=0.42 / height, hspace=0.28, wspace=0.08)
    for one, axes in zip(series, panels, strict=False):
        for other in series:
            axes.plot(other.xs, other.ys, color=_INK, alpha=0.2, linewidth=0.8)
        _draw(axes, one)
        axes.grid(axis="y")
        axes.set_title(_short(one.label), fontsize=8.5, pad=2)
        axes.set(ylim=(0, _top(series)), xlim=(-0.5, len(ticks) - 0.5))
        axes.set_xticks(range(len(ticks)), ticks)
    for axes in panels:
        axes.set_visible(False)
    figure.axes[0].set_ylabel(y_label)
    return figure


def _draw(axes: Axes, one: Series, **more: Any) -> None:
    errors = None
    if one.lows:
        sides = ([abs(bound - y) for bound, y in zip(bounds, one.ys, strict=True)] for bounds in (one.lows, one.highs))
        errors = list(sides)
    if one.dashed:
        more |= {"linestyle": "--", "markerfacecolor": "none"}
    marker = _MARKERS[one.place % len(_MARKERS)]
    look: dict[str, Any] = {"color": _colour(one.place), "marker": marker, "markevery": max(1, len(one.xs) // 12)}
    # not clipped, so that markers at 0 and 100 stay whole
    axes.errorbar(one.xs, one.ys, yerr=errors, elinewidth=1, clip_on=False, **look, **more)


def _top(series: Sequence[Series]) -> float:
    """The end of an axis of per cents, at least 10."""
    return min(100.0, max(10.0, 1.08 * max(high for one in series for high in one.highs)))


def _name_at_the_edge(axes: Axes, series: Sequence[Series]) -> None:
    """Names right of the axes, as near to the height of the last point as others allow, with a line to it."""
    low, high = axes.get_ylim()
    order = sorted((one for one in series if not one.dashed), key=lambda one: one.ys[-1])
    height = axes.get_window_extent().height * 72 / axes.figure.dpi  # points
    places = _spread([(one.ys[-1] - low) / (high - low) for one in order], 11 / height)
    line = {"arrowstyle": "-", "lw": 0.7, "alpha": 0.6, "shrinkA": 2, "shrinkB": 4, "relpos": (0, 0.5)}
    for one, place in zip(order, places, strict=True):
        axes.annotate(
            _short(one.label),
            (one.xs[-1], one.ys[-1]),
            (1.06, place),
            textcoords="axes fraction",
            va="center",
            annotation_clip=False,
            arrowprops={**line, "color": _colour(one.place)},
        )


def _spread(wanted: Sequence[float], gap: float) -> list[float]:
    """Ascending places in [0, 1], at least ``gap`` apart where they fit, near those that are ``wanted``."""
    places = list(wanted)
    for i in range(1, len(places)):
        places[i] = max(places[i], places[i - 1] + gap)
    top = 1.0
    for i in reversed(range(len(places))):
        places[i] = min(places[i], top)
        top = places[i] - gap
    return places


def bars_figure(title: str, groups: Mapping[str, Sequence[tuple[str, int, float]]]) -> Figure:
    """A bar for each (name, place, value) below its group's heading, its value written behind it."""
    lines = sum(len(bars) + 1.5 for bars in groups.values())
    height = 0.45 + 0.17 * lines
    figure = _figure(title, height)
    axes = figure.subplots()
    figure.subplots_adjust(left=0.34, right=0.98, top=1 - 0.32 / height, bottom=0.02)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.xaxis.set_visible(False)
    axes.tick_params(left=False)
    axes.set(xlim=(0, 1.2 * max(value for bars in groups.values() for *_, value in bars) or 1), ylim=(lines, 0))
    y, ticks = 0.5, []
    for heading, bars in groups.items():
        axes.text(-0.5, y + 0.1, heading, transform=axes.get_yaxis_transform(), va="center", style="italic")
        for name, place, value in bars:
            y += 1
            ticks.append((y, _short(name)))
            axes.barh(y, value, height=0.72, color=_colour(place))
            axes.annotate(f"{value:.1f}", (value, y), (3, 0), textcoords="offset points", va="center", fontsize=8)
        y += 1.5
    axes.set_yticks(*zip(*ticks, strict=True))
    return figure


def _figure(title: str, height: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height))
    figure.text(0.01, 1 - 0.06 / height, title, fontsize=10, va="top")
    return figure


@contextmanager
def style(salt: str) -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever this machine's configuration says; ids made with ``salt``."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        # Letters that the font lacks are drawn by the reader's fonts in SVG, and as boxes in PNG.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": f"socratic {salt}"})
        yield


def inline(svg: str, description: str) -> str:
    """``svg`` with attributes in place of styles, no ids that two plots would share, and the page's colours."""
    space = "{http://www.w3.org/2000/svg}"
    ElementTree.register_namespace("", space[1:-1])
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    colours = {colour: f"var(--arm-{place})" for place, colour in enumerate(COLOURS)} | {_INK: "currentColor"}
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{space}style", f"{space}metadata"):
                parent.remove(child)
    for element in root.iter():
        for part in element.attrib.pop("style", "").split(";"):
            key, _, value = (piece.strip() for piece in part.partition(":"))
            if key == "font":
                element.set("font-size", re.findall(r"[\d.]+px", value)[0])
                element.set("font-style", "italic" if "italic" in value else "normal")
            elif key:
                element.set(key, colours.get(value, value))
        if element.tag == f"{space}g":
            element.attrib.pop("id", None)
    width = float(root.attrib["width"].removesuffix("pt"))
    root.attrib.pop("height")
    root.attrib |= {"width": f"{width * 4 / 3:g}", "role": "img", "aria-label": description}
    return ElementTree.tostring(root, encoding="unicode")


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def label(name: str) -> str:
    """``name`` without what steers a terminal, and without the two characters that XML has not."""
    return re.sub("[\ufffe\uffff]", "\ufffd", visible(name).replace("\n", " "))


def _short(name: str) -> str:
    whole = label(name)
    return whole if len(whole) <= _LABEL else f"{whole[: _LABEL - 1]}…"
