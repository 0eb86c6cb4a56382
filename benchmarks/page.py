"""The report as one self-contained page: no script, no font, no file beside it.

For each workload: what it does, bars for its largest point, a curve where it has more than one
point, a histogram where it has latencies, and the table with every number. The machine, versions, GIL
state and the exact command stand at the top.

The overview at the top links to each workload. Colours follow the reader's prefers-color-scheme. gort is the strong
colour, the bare limit a dark grey, and everything else a light grey in the bars, where names stand beside them; in
the curves each library has a hue of its own, the same throughout the page. The page is well-formed XML as well, so
that a test can read it with a strict parser.
"""

from html import escape

from benchmarks import overview, svg, tables
from benchmarks.contenders import contender
from benchmarks.machine import lines
from benchmarks.meter import bucket_start
from benchmarks.results import Key
from benchmarks.workload import MORE_IS_BETTER

_STYLE = """
:root { color-scheme: light dark;
  --page: #fcfcfb; --ink: #1b1b1a; --soft: #5d5d59; --rule: #deded9; --panel: #f3f3f0;
  --gort: #1565c0; --bare: #55554f; --rival: #b9b9b2; --lose: #b3261e;
  --c-gort: #1565c0; --c-gort-other: #5e9bd8; --c-gort-green: #0b8585; --c-bare: #55554f; --c-asyncio: #b8570b; --c-uvloop: #967a00;
  --c-asyncio-streams: #d98c52; --c-uvloop-streams: #b9a347;
  --c-gevent: #2c7d3f; --c-trio: #8a3fa8; --c-threading: #b3261e; --c-pool: #a8527c; }
@media (prefers-color-scheme: dark) { :root {
  --page: #161615; --ink: #ecece8; --soft: #a3a39c; --rule: #3a3a37; --panel: #20201e;
  --gort: #64a8f0; --bare: #b4b4ac; --rival: #5c5c57; --lose: #f2857d;
  --c-gort: #64a8f0; --c-gort-other: #3f78b5; --c-gort-green: #3fb8b8; --c-bare: #b4b4ac; --c-asyncio: #f09a4e; --c-uvloop: #d3b53b;
  --c-asyncio-streams: #a8693a; --c-uvloop-streams: #8f7c2e;
  --c-gevent: #6cc183; --c-trio: #c58ae0; --c-threading: #f2857d; --c-pool: #e094ba; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem 1rem 4rem; max-width: 46rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; } h2 { font-size: 1.25rem; margin: 3rem 0 .3rem; line-height: 1.25; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; color: var(--soft); font-weight: 600; }
p { margin: .4rem 0; } a { color: inherit; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .9rem; margin: 1rem 0;
  padding: .8rem 1rem; background: var(--panel); border-radius: 6px; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
td.wrap { white-space: normal; min-width: 9rem; }
@media (min-width: 60rem) { #overview .scroll, #losses .scroll { margin-right: -7rem; } }
td.lose { color: var(--lose); font-weight: 600; }
.note { color: var(--soft); font-size: .9rem; }
svg { display: block; width: 100%; max-width: 38rem; height: auto; margin: .3rem 0; }
svg text { font: 11px system-ui, sans-serif; fill: var(--ink); }
svg text.small { font-size: 10px; fill: var(--soft); } svg text.value { fill: var(--soft); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .85rem; margin: .4rem 0; }
th, td { padding: .2rem .7rem .2rem 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: var(--page); }
th { color: var(--soft); font-weight: 600; }
rect.gort { fill: var(--gort); } rect.bare { fill: var(--bare); } rect.rival { fill: var(--rival); }
.gap { fill: var(--page); } .whisker { stroke: var(--ink); stroke-width: 1; opacity: .7; }
.grid { stroke: var(--rule); stroke-width: .7; } .axis { stroke: var(--soft); stroke-width: .8; }
.leader { stroke: var(--soft); stroke-width: .5; stroke-dasharray: 1.5 2; }
.curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
.curve.second { stroke-dasharray: 6 3; } .curve.third { stroke-dasharray: 2 2.5; }
"""

_HUES = (
    "gort",
    "gort-other",
    "gort-green",
    "bare",
    "asyncio",
    "uvloop",
    "asyncio-streams",
    "uvloop-streams",
    "gevent",
    "trio",
    "threading",
    "pool",
)


def _hue_rules():
    rules = []
    for hue in _HUES:
        rules.append(f".curve.c-{hue} {{ stroke: var(--c-{hue}); }}")
        rules.append(f"circle.c-{hue}, svg text.name.c-{hue} {{ fill: var(--c-{hue}); }}")
    return "\n".join(rules) + "\n"


def hues(names):
    """The classes of contenders in curves: a colour, and where several have it (other numbers of Ps) a dash as well."""
    found = {}
    for name in names:
        colour = f"c-{name}" if name in _HUES else "c-gort-other"
        same = sum(kind.startswith(colour + " ") for kind in found.values())
        found[name] = f"{colour} {('', 'second', 'third')[min(same, 2)]}"
    return {name: kind.strip() for name, kind in found.items()}


def kind(name):
    """The colour class of a contender in a bar."""
    return "gort" if contender(name).is_gort else "bare" if name == "bare" else "rival"


def _measured(results, work, point, metric):
    """(contender, values) for all that have values at a point."""
    found = []
    for name in results.contenders(work.name):
        if values := results.values(Key(work.name, point, name), metric):
            found.append((name, values))
    return found


def bar_plot(results, work, metric):
    """Bars for the main point; "" if nothing was measured."""
    point = overview.main_point(results, work, metric)
    if point is None:
        return ""
    found = _measured(results, work, point, metric)
    items = [
        svg.Bar(
            tables.label(work, name),
            results.median(Key(work.name, point, name), metric),
            min(values),
            max(values),
            tables.quantity(results.median(Key(work.name, point, name), metric), metric),
            kind(name),
        )
        for name, values in found
    ]
    where = f" with {point} {work.axis}" if work.axis else ""
    title = tables.heading(work, metric) + where + (" (longer is better)" if metric in MORE_IS_BETTER else "")
    return f"<h3>{escape(title)}</h3>" + svg.bars(items, f"{tables.title(results, work)}: {title}")


def curve_plot(results, work, metric):
    """Curves of the cost against the axis, if there is one and numbers at more than one place on it."""
    if not work.axis:
        return ""
    items, kinds = [], hues(results.contenders(work.name))
    for name in results.contenders(work.name):
        line = [
            (point.x, value)
            for point in results.points(work.name)
            if (value := results.median(Key(work.name, point, name), metric)) is not None
            and value > 0  # or it has no place on a logarithmic axis
        ]
        if line:
            items.append(svg.Curve(tables.label(work, name), line, kinds[name]))
    # Of what is drawn: a run that was stopped, or a size at which all failed, leaves points without numbers.
    if len({x for item in items for x, _ in item.points}) < 2:
        return ""
    title = f"{tables.heading(work, metric)} against the number of {work.axis}"
    plot = svg.curves(items, f"{tables.title(results, work)}: {title}", work.axis, lambda y: tables.quantity(y, metric))
    return f"<h3>{escape(title)}</h3>" + plot


def histogram_plot(results, work):
    """How the latencies are distributed, if the workload has any."""
    points = results.points(work.name)
    items = []
    for name in results.contenders(work.name):
        series = results.series.get(Key(work.name, points[-1], name))
        if series and series.histogram:
            items.append((tables.label(work, name), series.histogram, kind(name)))
    if not items:
        return ""
    what = work.headings.get("p50", "Latencies").partition(",")[0].capitalize()
    plot = svg.histogram(
        items, f"{tables.title(results, work)}: {what}", bucket_start, lambda seconds: tables.quantity(seconds, "time")
    )
    return f"<h3>{escape(what)}, all rounds together (logarithmic)</h3>" + plot


def html_table(rows):
    """A table from the lines that tables.table made: the same cells, so they cannot differ."""
    cells = [[text.strip().replace("  ", " \u2003") for text in line.strip("| ").split("|")] for line in rows]
    head = "".join(f"<th>{escape(text)}</th>" for text in cells[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>" for row in cells[2:])
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def overview_table(results, workloads):
    """The overview, each workload linked to its section; what gort loses is set apart."""
    head = "".join(f"<th>{escape(text)}</th>" for text in ["workload", "gort", *overview.COLUMNS.values()])
    body = []
    for row in overview.rows(results, workloads):
        link = f'<td class="wrap"><a href="#{row.name}">{escape(row.title)}</a></td><td>{escape(row.gort)}</td>'
        others = "".join(f'<td class="lose">{text}</td>' if loses else f"<td>{text}</td>" for text, loses in row.others)
        body.append(f"<tr>{link}{others}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def losses_part(results, workloads):
    found = overview.losses(results, workloads)
    if not found:
        return ""
    rows = tables.aligned(overview.loss_rows(results, workloads, found))
    table = html_table(rows).replace("<tr><td>", '<tr><td class="wrap">')
    why = "".join(
        f'<li><a href="#{name}">{name}</a>: {escape(reason)}</li>'
        for name, reason in overview.reasons(workloads, found)
    )
    why = f'<ul class="note">{why}</ul>'
    how = f'<p class="note">{escape(overview.HOW_TO_READ_LOSSES)}</p>'
    return f'<section id="losses"><h2>Where gort is not the cheapest</h2>{how}{table}{why}</section>'


def section(results, work):
    parts = [f'<section id="{work.name}"><h2>{escape(tables.title(results, work))}</h2><p>{escape(tables.story(results, work))}</p>']
    for metric in work.metrics:
        parts.append(bar_plot(results, work, metric))
        parts.append(curve_plot(results, work, metric))
    parts.append(histogram_plot(results, work))
    for metric in work.metrics:
        parts.append(f'<p class="note">{escape(tables.heading(work, metric))}: median, spread, ratio</p>')
        parts.append(html_table(tables.table(results, work, metric)))
    parts.append("</section>")
    return "".join(parts)


def page(results, workloads):
    """The whole page. `workloads`: name -> Workload."""
    names = results.workloads()
    gil = results.facts["python"]["gil"]
    title = f"gort benchmarks: Python {results.facts['python']['version']}, GIL {gil}"
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in lines(results.facts))
    left_out = "".join(f"<li>{escape(reason)}</li>" for reason in results.left_out)
    failed = "".join(
        f"<li>{escape(f'{key.workload} {key.point} {key.contender}: {error}')}</li>"
        for key, error in results.failures()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{escape(title)}</title><style>{_STYLE}{_hue_rules()}</style></head><body>"
        f"<h1>{escape(title)}</h1><dl>{facts}</dl>"
        '<p class="note">Shorter is better unless a plot says otherwise. Values are medians of '
        f"{tables.rounds(results)}, each contender in a process of its own, interleaved; whiskers reach from the "
        "lowest to the highest round, and a broken bar is longer than drawn. In the tables the last number is how many "
        "times gort's cost this is: over 1x gort is cheaper, below 1x it loses.</p>"
        f'<section id="overview"><h2>Overview</h2><p class="note">{escape(overview.HOW_TO_READ)}</p>'
        f"{overview_table(results, workloads)}</section>"
        + losses_part(results, workloads)
        + "".join(section(results, workloads[name]) for name in names)
        + (f'<h2>Left out</h2><ul class="note">{left_out}</ul>' if left_out else "")
        + (f"<h2>Failed</h2><ul>{failed}</ul>" if failed else "")
        + "</body></html>\n"
    )
