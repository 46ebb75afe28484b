"""Draws a report of benches/peers/run as time and memory over the number of pairs, both logarithmic.

    plot.py report.json figure.svg
"""

import json
import statistics
import sys

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "burn-contrastive"  # the same file from the same report
from matplotlib import pyplot  # noqa: E402  (after the choice of the backend)

report_path, figure_path = sys.argv[1:]
report = json.load(open(report_path))
figure, (time, memory) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
for side in report["cases"][-1]["sides"]:
    cases = [c for c in report["cases"] if side in c["sides"] and side != "gemm"]
    if not cases:
        continue
    pairs = [c["n"] for c in cases]
    seconds = [statistics.median(c["sides"][side]["seconds"]) for c in cases]
    mebibytes = [c["sides"][side]["peak_bytes"] / 2**20 for c in cases]
    time.loglog(pairs, seconds, "o-", base=2, label=side)
    memory.loglog(pairs, mebibytes, "o-", base=2, label=side)

# What N² and N would look like through the last point of the first side.
first = report["cases"][-1]["sides"][next(iter(report["cases"][-1]["sides"]))]
pairs = [c["n"] for c in report["cases"]]
for axes, last, power, name in [
    (time, statistics.median(first["seconds"]), 2, "N²"),
    (memory, first["peak_bytes"] / 2**20, 1, "N"),
]:
    slope = [last * (n / pairs[-1]) ** power for n in pairs]
    axes.loglog(pairs, slope, ":", base=2, color="grey", label=f"∝ {name}")
for axes, title in [
    (time, "forward and backward, seconds"),
    (memory, "memory over inputs, gradients included, MiB"),
]:
    axes.set(xlabel="pairs", title=title)
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
width, threads = report["cases"][-1]["d"], report["threads"]
figure.suptitle(f"InfoNCE, D = {width}, f32, {threads} threads, {report['date']}")
figure.savefig(figure_path, metadata={"Date": None})
