"""docs/capacity.md between its marks, and its figure, from what was measured and what is simulated now."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipelines.capacity import model

DOCS = Path(__file__).parents[2] / "docs"
_BEGIN, _END = "<!-- written by python -m pipelines.capacity document -->", "<!-- end -->"
SIZES = (100, 10_000, 1_000_000)
# Policies are compared at a size at which rooms need several pods and a whole day can be simulated.
POLICY_DAY = 10_000
# A million studies a day are simulated for the busiest hour's rate only; the day would be ten million events.
_PEAK_HOURS = {100: 24.0, 10_000: 24.0, 1_000_000: 0.2}


def write() -> list[Path]:
    """Writes both; returns where. Minutes of simulation are some tens of seconds of computing."""
    costs, rules = model.measured(), model.assumptions()
    page, figure = DOCS / "capacity.md", DOCS / "capacity.svg"
    text = page.read_text(encoding="utf-8")
    policies = compared(costs, rules)
    parts = (_cost(costs), _machine(costs), _sizes(costs, rules), _policies(policies))
    head, _, rest = text.partition(_BEGIN)
    tail = rest.partition(_END)[2]
    page.write_text(f"{head}{_BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{_END}{tail}", encoding="utf-8")
    draw(policies, figure)
    return [page, figure]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)])


def _cost(costs: Mapping[str, Any]) -> str:
    per, machine = costs["per_study"], costs["machine"]
    rows = [(room, f"{seconds:.2f}", f"{costs['idle_cores'][room]:.3f}") for room, seconds in per["cpu_s"].items()]
    total = sum(per["cpu_s"].values())
    rows.append(("**all rooms**", f"**{total:.2f}**", f"**{sum(costs['idle_cores'].values()):.3f}**"))
    events = ", ".join(
        f"{count:g} {name.removeprefix('osler.').removesuffix('.v1')}" for name, count in per["events"].items()
    )
    return "\n\n".join(
        [
            "## What one study costs",
            f"Measured {costs['date']}: {machine['cores']} cores of {machine['processor']}, {costs['setting']}. A study of"
            f" the demo patient (PET/CT with MR and contours) has {per['instances']:.0f} instances and"
            f" {per['dicom_bytes'] / 1e6:.0f} MB, and its share of a chart. {per['stored_bytes'] / 1e6:.0f} MB are stored of it."
            f" Events: {events}. No GPU was used.",
            table(("room", "CPU-s for a study", "cores while idle"), rows),
        ]
    )


def _machine(costs: Mapping[str, Any]) -> str:
    simulated, seconds = model.one_machine(costs)
    together = costs["together"]
    return (
        "## The simulation against the machine\n\n"
        f"{together['patients']} patients sent at once took {seconds:.1f} s until the last advice; the simulation, which"
        f" knows only the patients sent alone, says {simulated:.1f} s ({simulated / seconds - 1:+.1%})."
        " A test holds it within 10 %."
        f" That machine does {2 * together['patients'] / seconds * 86400:,.0f} such studies a day at most."
    )


def _sizes(costs: Mapping[str, Any], rules: Mapping[str, Any]) -> str:
    rows = []
    for per_day in SIZES:
        for gpu in (False, True):
            pods = model.pods_for(per_day, costs, rules, gpu)
            seen = _fixed(per_day, costs, rules, pods, gpu)
            rows.append(
                (f"{per_day:,}", "GPU" if gpu else "CPU", *(f"{pods[room]:,}" for room in model.VISITS),
                 f"{sum(pods.values()):,}", f"{seen.p95_s:.0f} s")
            )  # fmt: skip
    hours = max(rules["hourly"]) / sum(rules["hourly"])
    storage = [f"{n:,}: {n * costs['per_study']['stored_bytes'] / 1e12:.2g} TB" for n in SIZES]
    return "\n\n".join(
        [
            "## What so many studies a day need",
            f"Pods at the busiest hour ({hours:.0%} of the day's studies), each busy {rules['utilisation']:.0%} of the time at"
            " most, one core each; and the 95th percentile from announcement to advice with so many pods. With a GPU, imaging's"
            f" pods hold one each and are taken to be {rules['gpu_speedup']} times as fast (an assumption). Partitions of a topic"
            " must be at least a room's pods.",
            table(("studies a day", "imaging on", *model.VISITS, "all", "p95"), rows),
            f"`ingest` files {costs['per_study']['instances']:.0f} instances of a study in"
            f" {costs['per_study']['cpu_s']['ingest']:.1f} CPU-s: "
            + "; ".join(f"{n:,} a day need {_ingest(n, costs, rules):,} cores at the busiest hour" for n in SIZES)
            + ". Stored a day: " + "; ".join(storage) + ".",
        ]
    )  # fmt: skip


def _ingest(per_day: int, costs: Mapping[str, Any], rules: Mapping[str, Any]) -> int:
    peak = per_day * max(rules["hourly"]) / sum(rules["hourly"]) / 3600.0
    return max(1, -int(-peak * costs["per_study"]["cpu_s"]["ingest"] / rules["utilisation"] // 1))


def _fixed(
    per_day: float, costs: Mapping[str, Any], rules: Mapping[str, Any], pods: Mapping[str, int], gpu: bool
) -> model.Outcome:
    busiest = float(rules["hourly"].index(max(rules["hourly"])))
    hours = _PEAK_HOURS[int(per_day)]
    start = 0.0 if hours == 24.0 else busiest
    cluster = model.Cluster(costs, rules, pods, gpu=gpu, limit=10**6, first_hour=start)
    return cluster.run(per_day, hours, seed=1)


def compared(costs: Mapping[str, Any], rules: Mapping[str, Any]) -> dict[tuple[str, bool, bool], model.Outcome]:
    """(policy, imaging on GPUs, a zone lost) -> a day of `POLICY_DAY` studies; the same arrivals for all."""
    found = {}
    for gpu, lost, name in itertools.product((False, True), (False, True), model.POLICIES):
        policy = model.POLICIES[name](rules)
        cluster = model.Cluster(
            costs, rules, dict.fromkeys(model.VISITS, 1), policy, gpu=gpu, zone_lost=lost, limit=rules["partitions"]
        )
        found[name, gpu, lost] = cluster.run(POLICY_DAY, 24.0, seed=1)
    return found


def _policies(found: Mapping[tuple[str, bool, bool], model.Outcome]) -> str:
    rows = [
        (name, "GPU" if gpu else "CPU", "lost" if lost else "whole", f"{o.p50_s:.0f} s", f"{o.p95_s:.0f} s",
         f"{o.longest_s:.0f} s", o.unfinished, f"{sum(o.pod_hours.values()):.0f}", f"{o.pod_hours['imaging']:.0f}")
        for (name, gpu, lost), o in found.items()
    ]  # fmt: skip
    return "\n\n".join(
        [
            "## Which autoscaling",
            f"A day of {POLICY_DAY:,} studies, the same for all; with a zone lost, half of all pods vanish at the busiest time"
            " and what they did is done again by others.",
            table(
                (
                    "policy",
                    "imaging on",
                    "zone",
                    "p50",
                    "p95",
                    "longest",
                    "unfinished",
                    "pod-hours",
                    "of these imaging",
                ),
                rows,
            ),
            "![Turnaround against pod-hours by policy](capacity.svg)",
        ]
    )


def draw(found: Mapping[tuple[str, bool, bool], model.Outcome], path: Path) -> None:
    """95th percentile against pod-hours: below and to the left is better."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "osler"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axis, gpu in zip(axes, (False, True), strict=True):
        for name in model.POLICIES:
            for lost, marker in ((False, "o"), (True, "x")):
                outcome = found[name, gpu, lost]
                colour = f"C{list(model.POLICIES).index(name)}"
                label = name + (", zone lost" if lost else "")
                axis.scatter(
                    [sum(outcome.pod_hours.values())], [outcome.p95_s], marker=marker, color=colour, label=label
                )
        axis.set_title("imaging on " + ("GPUs from none" if gpu else "CPUs"))
        axis.set_xlabel("pod-hours a day")
        axis.set_yscale("log")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("announcement to advice, 95th percentile (s)")
    axes[1].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
