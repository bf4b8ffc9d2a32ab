"""Results as markdown: a page for each machine, and a summary of all of them."""

import json
from collections import Counter
from statistics import median

from plan import ALONE, PLAN, SECTIONS, SUMMARY, size_class

HEADINGS = {"gemm": "Products", "layers": "Layers", "elementwise": "Element-wise", "formats": "Number formats",
            "calibration": "Ranges"}
WORK = {work.op: work for work in PLAN}


class Figures:
    """What one result says."""

    def __init__(self, result):
        self.result = result
        self.work, self.shape, self.threads = WORK[result["op"]], result["shape"], result["threads"]
        self.units, self.unit = self.work.units(self.shape)
        self.times = result["seconds"]
        self.own = self.times.get("quantd")
        self.peers = {name: times for name, times in self.times.items() if name != "quantd"}

    def rate(self, name):
        return self.units / median(self.times[name])

    def ratio(self, peers):
        """How many times as fast as the fastest of these peers: of each round, then the median of all rounds."""
        if not self.own or not peers:
            return None
        rounds = zip(self.own, *(self.peers[peer] for peer in peers))
        return median(min(theirs) / ours for ours, *theirs in rounds)

    def best(self):
        return min(self.peers, key=lambda name: median(self.peers[name]), default=None)

    def limit(self):
        """Seconds that the work takes at least, or None where no limit is known."""
        known = self.result["limits"]
        groups = [[median(known[name]) for name in group if name in known] for group in self.work.limits]
        least = [min(group) for group in groups if group]
        if not least or (self.work.one_after_another and len(least) < len(groups)):
            return None
        return sum(least) if self.work.one_after_another else max(least)

    def share(self):
        """Of the limit."""
        limit = self.limit()
        return limit / median(self.own) if limit and self.own else None


def table(heading, rows):
    # Words to the left, figures to the right.
    sides = ["---"] + ["---" if "peer" in name and not name.startswith("x") else "---:" for name in heading[1:]]
    lines = [heading, sides, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value, digits=3):
    """Three significant digits, without an exponent."""
    if value is None:
        return "-"
    whole = len(str(int(abs(value))))
    return f"{value:.{max(0, digits - whole)}f}" if abs(value) >= 1 else f"{value:.2g}"


def ratio(value):
    return "-" if value is None else f"{value:.2f}" if value < 10 else number(value)


def percent(value):
    return "-" if value is None else f"{100 * value:.0f} %"


def span(values, show):
    """The median, and from where to where."""
    values = [value for value in values if value is not None]
    if not values:
        return "-"
    low, middle, high = show(min(values)), show(median(values)), show(max(values))
    return middle if low == high else f"{middle} ({low} to {high})"


def about(results, machine):
    """Machine, versions, dates."""
    dates = sorted({result["date"] for result in results})
    versions = sorted({version for result in results for version in result["versions"] if not version.startswith("quantd")})
    isas = ", ".join(sorted({result["isa"] for result in results}))
    commits = ", ".join(sorted({result["commit"] for result in results}))
    rounds = sorted({len(times) for result in results for times in result["seconds"].values()})
    between = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    return "\n".join([
        f"{machine['processor']}; hypervisor {machine['hypervisor']}; caches {machine['caches']}; "
        f"{machine['memory']}; {machine['kernel']}; rustc {machine['rustc']}.",
        f"Instructions: {machine['flags']}.",
        f"quantd at {commits} on {isas}; {', '.join(versions)}; Python {machine['python']}.",
        f"Measured {between}, {' or '.join(map(str, rounds))} rounds.",
    ])


def summary(results):
    """The rows of the summary, of the instruction set that most was measured with."""
    main = Counter(result["isa"] for result in results).most_common(1)[0][0]
    figures = [Figures(result) for result in results if result["op"] in SUMMARY and result["isa"] == main]
    rows = []
    groups = dict.fromkeys((f.work.op, size_class(f.work.section, f.shape)) for f in sorted(figures, key=place))
    for op, size in groups:
        if size is None:
            continue
        own = [f for f in figures if f.work.op == op and size_class(f.work.section, f.shape) == size and f.own]
        if not own:
            continue
        rivals = Counter(f.best().split("/")[0] for f in own if f.best())
        row = [f"{op}, {size}"]
        for threads in (1, 2):
            of = [f for f in own if f.threads == threads]
            row += [span([f.share() for f in of], percent), span([f.ratio(list(f.peers)) for f in of], ratio)]
        ort = [f.ratio([p for p in f.peers if p.startswith("onnxruntime")]) for f in own]
        rows.append([*row, rivals.most_common(1)[0][0] if rivals else "-", span(ort, ratio)])
    heading = ["work", "of the limit, 1 thread", "x best peer", "of the limit, 2 threads", "x best peer",
               "best peer, mostly", "x ONNX Runtime"]
    return table(heading, rows) if rows else "Nothing of the summary was measured."


def page(kept):
    """All that was measured on one machine."""
    results, alone, machine = kept["results"], kept["alone"], kept["machine"]
    parts = [f"# {machine['name']}"]
    if results:
        parts += [about(results, machine)]
    parts += ["How all of it is measured, and what the rows are, is said in [PERFORMANCE.md](../PERFORMANCE.md)."]
    if results:
        parts += ["## Summary", summary(results)]
    for name, heading in ALONE.items():
        if name in alone:
            parts += [f"## {heading}", alone[name]]
    if results:
        parts += ["## Figures", everything(results)]
    return "\n\n".join(parts) + "\n"


def side_by_side(pages):
    """The summaries of all machines, from their pages: by name of the file, its text."""
    machines, rows = [], {}
    for file, text in pages.items():
        _, found, rest = text.partition("\n## Summary\n")
        lines = [[cell.strip() for cell in line.split("|")[1:-1]]
                 for line in rest.partition("\n## ")[0].splitlines() if line.startswith("|")]
        if not found or len(lines) < 3:
            continue
        place = len(machines)
        machines.append(f"[{text.splitlines()[0].removeprefix('# ')}]({file})")
        for work, *cells in lines[2:]:
            rows.setdefault(work, {})[place] = [f"{cells[0]}; {cells[1]}", f"{cells[2]}; {cells[3]}"]
    heading = ["work", *(f"{name}, {threads}" for name in machines for threads in ("1 thread", "2 threads"))]
    none = ["-", "-"]
    return table(heading, [[work, *(cell for place in range(len(machines)) for cell in of.get(place, none))]
                           for work, of in rows.items()])


def criterion(folder):
    """What Criterion left there: bytes a second of each bench. Nothing where it left nothing."""
    rows = []
    for path in sorted(folder.glob("*/*/new/benchmark.json")):
        about = json.loads(path.read_text())
        estimates = json.loads((path.parent / "estimates.json").read_text())
        rate = about["throughput"]["Bytes"] / estimates["median"]["point_estimate"] * 1e9 / 2**30
        rows.append([f"{about['group_id']} {about['function_id']}", f"{number(rate)} GiB/s"])
    return table(["one thread", "of text"], rows) if rows else ""


def place(figure):
    """Where a figure stands: as the plan has it."""
    return PLAN.index(figure.work), figure.work.shapes.index(figure.shape) if figure.shape in figure.work.shapes else 99


def everything(results):
    """One table for each section and number of threads."""
    parts = []
    for section in SECTIONS:
        for isa, threads in sorted({(r["isa"], r["threads"]) for r in results if r["section"] == section}):
            own = [Figures(r) for r in results if (r["section"], r["isa"], r["threads"]) == (section, isa, threads)]
            rows = [full_row(figure) for figure in sorted(own, key=place)]
            title = f"### {HEADINGS[section]}, {threads} thread{'s' * (threads > 1)}, {isa}"
            heading = ["work", "limit", "quantd", "of the limit", "x best peer", "peers (and quantd as a multiple of each)"]
            parts.append(f"{title}\n\n{table(heading, rows)}")
    failures = {}
    for result in results:
        for name, reason in result["failures"].items():
            failures.setdefault((name, reason), {})[result["op"]] = None
    if failures:
        lines = [f"* {name} ({', '.join(ops)}): {reason}" for (name, reason), ops in failures.items()]
        parts.append("### Left out\n\n" + "\n".join(lines))
    return "\n\n".join(parts)


def full_row(figure):
    limit = figure.limit()
    fastest_first = sorted(figure.peers, key=lambda name: median(figure.peers[name]))
    peers = [f"{name} {number(figure.rate(name))} ({ratio(figure.ratio([name]))})" for name in fastest_first]
    return [
        f"{figure.work.op} {figure.shape}",
        f"{number(figure.units / limit)} {figure.unit}" if limit else "-",
        number(figure.rate("quantd")) if figure.own else "-",
        percent(figure.share()),
        ratio(figure.ratio(list(figure.peers))),
        ", ".join(peers) or "-",
    ]
