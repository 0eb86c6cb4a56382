"""Plots as SVG text, written by hand with the standard library: bars, curves, histograms.

Every plot is WIDTH units wide and scales with the page, so its text is legible on a phone (where a
unit is about a pixel) and larger on a desk. Nothing is coloured here: elements carry classes, and the
page's style sheet gives each class a colour for light and one for dark. No plot needs a script; the
exact values are in `<title>` elements, which browsers show on hover, and in the table under the plot.

Bars start at zero, for a bar on a logarithmic scale shows no proportion. So that one contender at a
hundred times the cost does not flatten all others, bars end at LONGEST times the middle one and are
then drawn broken, with their value beside them. Curves have logarithmic axes: a cost that does not
depend on the number of goroutines is a level line.
"""

import math
import statistics
from html import escape
from typing import NamedTuple

WIDTH = 400
LONGEST = 4.0
LETTER = 6.2  # the width of a letter of a label on average, with something to spare: fonts differ


class Bar(NamedTuple):
    label: str
    value: float
    low: float
    high: float
    text: str
    kind: str


class Curve(NamedTuple):
    label: str
    points: list[tuple[float, float]]
    kind: str


def _svg(height, description, parts):
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(description)}">'
        + "".join(parts)
        + "</svg>"
    )


def _text(x, y, text, kind="", anchor="start"):
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _line(x1, y1, x2, y2, kind):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def label_room(labels, least):
    """The room that the longest of these labels needs beside a plot."""
    return max(least, math.ceil(max(map(len, labels), default=0) * LETTER) + 8)


def bars(items, description):
    """Horizontal bars with a whisker from the lowest to the highest round."""
    row, left = 22, label_room([item.label for item in items], 126)
    room = WIDTH - left - 92
    longest, typical = max(item.value for item in items), statistics.median(item.value for item in items)
    if typical:  # else most are nothing, and no bar is too long beside them
        longest = min(longest, LONGEST * typical)
    scale = room / (longest or 1.0)
    parts = []
    for place, item in enumerate(items):
        top = place * row + 3
        middle = top + 8
        broken = item.value > longest * 1.001
        length = max(1.0, min(item.value, longest) * scale)
        parts.append(f"<g><title>{escape(f'{item.label}: {item.text}')}</title>")
        parts.append(_text(left - 6, middle + 4, item.label, anchor="end"))
        parts.append(f'<rect x="{left}" y="{top}" width="{length:.1f}" height="16" rx="2" class="{item.kind}"/>')
        end = left + length
        if broken:
            x = end - 14
            parts.append(f'<path d="M{x:.1f} {top - 1}l5 18h4l-5 -18z" class="gap"/>')
        elif item.high > item.low:
            low, high = left + item.low * scale, left + min(item.high, longest * 1.1) * scale
            parts.append(_line(low, middle, high, middle, "whisker"))
            end = max(end, high)
        parts.append(_text(end + 5, middle + 4, item.text, "value"))
        parts.append("</g>")
    return _svg(len(items) * row + 4, description, parts)


def ticks(low, high):
    """Round values within a range for a logarithmic axis: decades, or 1-2-5 in a short range."""
    steps = (1,) if high / low >= 50 else (1, 2, 5)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [value for value in found if low * 0.999 <= value <= high * 1.001]


def spread_out(places, gap):
    """Move places apart until neighbours are `gap` from each other, keeping their order."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for before, index in zip(order, order[1:]):
        moved[index] = max(moved[index], moved[before] + gap)
    return moved


def curves(items, description, x_name, y_text):
    """Lines over logarithmic axes, each named at its right end. `y_text` formats a tick.

    Every coordinate is more than zero, and there are at least two different xs among them.
    """
    height, left, top, bottom = 240, 52, 8, 204
    right = WIDTH - label_room([item.label for item in items], 104)
    xs = [x for item in items for x, _ in item.points]
    ys = [y for item in items for _, y in item.points]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = min(ys) / 1.15, max(ys) * 1.15

    def x_at(x):
        return left + (right - left) * math.log(x / x_low) / math.log(x_high / x_low)

    def y_at(y):
        return bottom - (bottom - top) * math.log(y / y_low) / math.log(y_high / y_low)

    parts = []
    for y in ticks(y_low, y_high):
        parts.append(_line(left, y_at(y), right, y_at(y), "grid"))
        parts.append(_text(left - 5, y_at(y) + 4, y_text(y), "small", "end"))
    for x in sorted(set(xs)):
        parts.append(_text(x_at(x), bottom + 15, short(x), "small", "middle"))
    parts.append(_line(left, bottom, right, bottom, "axis"))
    parts.append(_text((left + right) / 2, bottom + 31, x_name, "small", "middle"))
    ends = spread_out([y_at(item.points[-1][1]) for item in items], 12)
    for item, label_y in zip(items, ends):
        places = [(x_at(x), y_at(y)) for x, y in item.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f"<g><title>{escape(item.label)}</title>")
        parts.append(f'<polyline points="{path}" class="curve {item.kind}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" class="{item.kind}"/>' for x, y in places]
        x, y = places[-1]
        if x < right - 1:  # a curve that stops early is led to its name
            parts.append(_line(x + 4, y, right + 3, label_y, "leader"))
        parts.append(_text(right + 6, label_y + 4, item.label, f"name {item.kind}"))
        parts.append("</g>")
    height = max(height, max(ends, default=0) + 10)
    return _svg(height, description, parts)


def histogram(items, description, bucket_start, x_text):
    """One row a contender over a common logarithmic axis. items: (label, {bucket: count}, kind)."""
    row, left, right = 46, label_room([label for label, _, _ in items], 126), WIDTH - 8
    buckets = [bucket for _, counts, _ in items for bucket in counts]
    first, last = min(buckets), max(buckets) + 1
    width = (right - left) / (last - first)
    parts = []
    for place, (label, counts, kind) in enumerate(items):
        base = (place + 1) * row - 6
        highest, total = max(counts.values()), sum(counts.values())
        parts.append(_text(left - 6, base - 10, label, anchor="end"))
        for bucket, count in sorted(counts.items()):
            tall = max(0.7, (row - 14) * count / highest)
            start, end = x_text(bucket_start(bucket)), x_text(bucket_start(bucket + 1))
            parts.append(
                f'<rect x="{left + (bucket - first) * width:.1f}" y="{base - tall:.1f}" '
                f'width="{max(0.5, width - 0.7):.1f}" height="{tall:.1f}" class="{kind}">'
                f"<title>{escape(f'{label}: {count / total:.1%} from {start} to {end}')}</title></rect>"
            )
        parts.append(_line(left, base, right, base, "axis"))
    bottom = len(items) * row
    step = max(1, math.ceil((last - first) / 5))
    for bucket in range(first, last + 1, step):
        x = left + (bucket - first) * width
        anchor = "end" if x > right - 12 else "middle"
        parts.append(_text(x, bottom + 8, x_text(bucket_start(bucket)), "small", anchor))
    return _svg(bottom + 14, description, parts)


def short(number):
    """1000 -> 1k, 1000000 -> 1M: an axis label."""
    for factor, unit in ((1e6, "M"), (1e3, "k")):
        if number >= factor:
            return f"{number / factor:g}{unit}"
    return f"{number:g}"
