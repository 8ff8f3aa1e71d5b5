"""One self-contained HTML page of a run: a table and a bar a row."""
import html, statistics


def write_page(path, results, machine):
    body = []
    for row in results:
        figures = row["figures"]
        names = list(figures)
        cpu = {n: statistics.median(r["cpuMicros"] for r in figures[n] if "cpuMicros" in r)
               for n in names if any("cpuMicros" in r for r in figures[n])}
        top = max(cpu.values(), default=1) or 1
        title = f"{row['nodes']} node(s): {row['workload']}" + (f", {row['clients']}" if row.get("clients") else "")
        body.append(f"<h2>{html.escape(title)}</h2>")
        if "polder" in cpu and cpu.get("etcd"):
            target = row.get("target")
            met = "" if target is None else (
                f" (target {target:.2f}: {'met' if cpu['polder'] <= target * cpu['etcd'] else 'not met'})")
            body.append(f"<p>CPU {cpu['polder'] / cpu['etcd']:.2f} of etcd's{met}</p>")
        for n in cpu:
            width = 100 * cpu[n] / top
            body.append(f'<div class="bar"><i class="{n}" style="width:{width:.1f}%"></i>'
                        f"<span>{n} {cpu[n]:.1f} &micro;s of CPU</span></div>")
        keys = [k for k in LABELS if any(k in r for n in names for r in figures[n])]
        body.append("<table><tr><th></th>" + "".join(f"<th>{LABELS[k]}</th>" for k in keys) + "</tr>")
        for n in names:
            cells = []
            for k in keys:
                values = [r[k] for r in figures[n] if k in r]
                cells.append(f"<td>{statistics.median(values):,.1f}<small>{min(values):,.1f}&ndash;"
                             f"{max(values):,.1f}</small></td>" if values else "<td></td>")
            body.append(f"<tr><th>{n}</th>" + "".join(cells) + "</tr>")
        body.append("</table>")
    with open(path, "w") as f:
        f.write(PAGE.replace("MACHINE", html.escape(machine)).replace("BODY", "\n".join(body)))


LABELS = {
    "cpuMicros": "CPU &micro;s", "perSecond": "per second", "p50": "p50 ms", "p90": "p90 ms",
    "p99": "p99 ms", "p999": "p99.9 ms", "max": "max ms", "alone": "p99 alone ms", "rssMB": "RSS MB",
    "bytesPerRequest": "disk B", "syncsPerRequest": "syncs",
}

PAGE = """<!doctype html><meta charset="utf-8"><title>Polder beside etcd</title>
<style>
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
h1{font-size:1.5rem}h2{font-size:1.05rem;margin:2rem 0 .3rem}p{margin:.2rem 0}
table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.15rem .7rem;text-align:right;border-bottom:1px solid #ddd}th{font-weight:600}
td small{display:block;color:#777}
.bar{position:relative;height:1.5rem;background:#f2f2f2;margin:.15rem 0}
.bar i{position:absolute;inset:0 auto 0 0}.bar span{position:relative;padding-left:.5rem}
.polder{background:#8fc7ff}.etcd{background:#ffd08f}
@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}.bar{background:#2a2a2a}
.polder{background:#1f5f9f}.etcd{background:#8a5a10}th,td{border-color:#333}}
</style>
<h1>Polder beside etcd</h1>
<p>MACHINE</p>
<p>Medians of the rounds, with the least and the most. CPU is user and system time of all server
processes for one unit of work.</p>
BODY
"""
