"""One self-contained HTML page of a run: the targets first, then a chart and a table a row."""
import html, math, statistics

from rows import DIGITS, LABELS

COLORS = {"polder": "#2f7fd0", "etcd": "#d98a1f"}


def write_page(path, document):
    body = [summary(document["rows"])]
    if document.get("limits"):
        body.append(limits(document["limits"]))
    if document.get("rooms"):
        body.append(rooms(document["rooms"]))
    for row in document["rows"]:
        body.append(section(row))
    head = f"{document['machine']}; {document['polder'] or 'polder'}; {document['etcd'] or 'no etcd'}"
    with open(path, "w") as f:
        f.write(PAGE.replace("MACHINE", html.escape(head)).replace("BODY", "\n".join(body)))


def summary(rows):
    lines = []
    for row in rows:
        for target in row["targets"]:
            word = "met" if target["met"] else "not met"
            lines.append(f"<tr class='{'met' if target['met'] else 'missed'}'><td>{title(row)}</td>"
                         f"<td>{html.escape(target['text'])}</td><td>{word}</td></tr>")
    if not lines:
        return ""
    met = sum(t["met"] for r in rows for t in r["targets"])
    return (f"<h2>{met} of {len(lines)} targets met</h2><table class='targets'>" + "".join(lines)
            + "</table>")


def limits(floor):
    cells = [("one fdatasync of 512 B", floor["sync512"]), ("of 4 KiB", floor["sync4096"]),
             ("of 64 KiB", floor["sync65536"]), ("a round trip over loopback, on one processor", floor["roundTrip"]),
             ("the same between two", floor["roundTripApart"])]
    lines = [f"<tr><td>{name}</td><td>{a:,.1f} &micro;s</td><td><small>{b:,.1f}&ndash;{c:,.1f}</small></td></tr>"
             for name, (a, b, c) in cells]
    lines += [f"<tr><td>memcpy of {size}</td><td>{floor[key]:,.3f} &micro;s</td><td></td></tr>"
              for size, key in (("256 B", "copy256"), ("4 KiB", "copy4096"), ("1 MiB", "copy1048576"))]
    return "<h2>What the machine needs</h2><table class='targets'>" + "".join(lines) + "</table>"


def rooms(micro):
    top = max((r["nanos"] for r in micro), default=1)
    lines = [f"<tr><td>{html.escape(r['name'])}</td><td>{r['nanos'] / 1000:,.2f} &micro;s</td>"
             f"<td>{r['allocations']:,.2f} of {r['budget']:,.2f}</td>"
             f"<td><i class='polder' style='width:{10 * r['nanos'] / top:.2f}rem'></i></td></tr>" for r in micro]
    return ("<h2>Rooms of a request</h2><table class='targets'><tr><th></th><th>time</th>"
            "<th>allocations</th><th></th></tr>" + "".join(lines) + "</table>")


def title(row):
    return html.escape(f"{row['nodes']} node(s): {row['title']}")


def section(row):
    figures = row["figures"]
    out = [f"<h2>{title(row)}</h2>"]
    for target in row["targets"]:
        out.append(f"<p class='{'met' if target['met'] else 'missed'}'>{html.escape(target['text'])}: "
                   f"{'met' if target['met'] else 'not met'}</p>")
    for key in ("cpuMicros", "rssMB", "seconds", "corePercent"):
        values = {n: med(r, key) for n, r in figures.items() if med(r, key) is not None}
        if values:
            out.append(bars(values, LABELS[key]))
            break
    out.append(curves(figures))
    keys = [k for k in LABELS if any(k in r for rounds in figures.values() for r in rounds)]
    out.append("<table><tr><th></th>" + "".join(f"<th>{html.escape(LABELS[k])}</th>" for k in keys) + "</tr>")
    for name, rounds in figures.items():
        cells = []
        for key in keys:
            values, digits = [r[key] for r in rounds if r.get(key) is not None], DIGITS.get(key, 1)
            cells.append(f"<td>{statistics.median(values):,.{digits}f}<small>{min(values):,.{digits}f}&ndash;"
                         f"{max(values):,.{digits}f}</small></td>" if values else "<td></td>")
        out.append(f"<tr><th>{name}</th>" + "".join(cells) + "</tr>")
    return "\n".join(out + ["</table>"])


def med(rounds, key):
    values = [r[key] for r in rounds if r.get(key) is not None]
    return statistics.median(values) if values else None


def bars(values, label):
    top = max(values.values()) or 1
    return "".join(
        f'<div class="bar"><i class="{n.split()[0]}" style="width:{100 * v / top:.1f}%"></i>'
        f"<span>{n}: {v:,.2f} {html.escape(label)}</span></div>" for n, v in values.items())


def curves(figures):
    """Latency over percentiles, one line a round: 0, 90, 99, 99.9, 99.99 at even distances."""
    lines = [(n, r["curve"]) for n, rounds in figures.items() for r in rounds if r.get("curve")]
    if not lines:
        return ""
    width, height, left, bottom = 720, 220, 50, 24
    nines = lambda p: min(4.0, -math.log10(max(1e-5, 1 - p / 100)))
    values = [max(0.01, v) for _, curve in lines for p, v in curve if p < 100]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    x = lambda p: left + (width - left - 10) * nines(p) / 4
    y = lambda v: 8 + (height - bottom - 8) * (high - math.log10(max(0.01, v))) / (high - low)
    out = [f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="latency by percentile">']
    for p in (0, 90, 99, 99.9, 99.99):
        out.append(f'<line x1="{x(p):.0f}" x2="{x(p):.0f}" y1="8" y2="{height - bottom}"/>'
                   f'<text x="{x(p):.0f}" y="{height - 6}" text-anchor="middle">{p:g} %</text>')
    for exponent in range(low, high + 1):
        at = y(10 ** exponent)
        out.append(f'<line x1="{left}" x2="{width - 10}" y1="{at:.0f}" y2="{at:.0f}"/>'
                   f'<text x="{left - 6}" y="{at + 4:.0f}" text-anchor="end">{10 ** exponent:g} ms</text>')
    older = [name for name in figures if name != "polder"][1:]
    for name, curve in lines:
        dashes = ' stroke-dasharray="5 4"' if name in older else ""
        points = " ".join(f"{x(p):.1f},{y(v):.1f}" for p, v in curve if p < 99.999)
        out.append(f'<polyline points="{points}" stroke="{COLORS.get(name.split()[0], "#777")}"{dashes}/>')
    return "".join(out) + "</svg>"


PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Polder beside etcd</title>
<meta name="viewport" content="width=device-width">
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem}h2{font-size:1.05rem;margin:2.2rem 0 .3rem}p{margin:.2rem 0}
table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}
th,td{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #ddd}th{font-weight:600}
.targets td,.targets th{text-align:left}.targets td:last-child{white-space:nowrap}.targets i{display:inline-block;height:.7rem}
td small{display:block;color:#777}
.met td:last-child,p.met{color:#1a7f37}.missed td:last-child,p.missed{color:#c0392b;font-weight:600}
.bar{position:relative;height:1.5rem;background:#f2f2f2;margin:.15rem 0}
.bar i{position:absolute;inset:0 auto 0 0}.bar span{position:relative;padding-left:.5rem}
.polder{background:#8fc7ff}.etcd{background:#ffd08f}
svg{max-width:45rem;display:block;margin:.4rem 0}svg line{stroke:#ddd}svg text{font-size:11px;fill:#777}
svg polyline{fill:none;stroke-width:1.6}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}.bar{background:#2a2a2a}
.polder{background:#1f5f9f}.etcd{background:#8a5a10}th,td{border-color:#333}svg line{stroke:#333}
.met td:last-child,p.met{color:#5fd07f}.missed td:last-child,p.missed{color:#ff7b6b}}
</style>
<h1>Polder beside etcd</h1>
<p>MACHINE</p>
<p>Medians of the rounds, with the least and the most. CPU is user and system time of all server
processes for one unit of work. Latencies of open loops count from when a request was due.
<span style="color:#2f7fd0">&#9632; Polder</span> <span style="color:#d98a1f">&#9632; etcd</span></p>
BODY
</html>
"""
