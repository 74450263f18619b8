"""Searches over stacks at equal budgets: which algorithm, and is it worth it after merging?

    python experiments/stacking/searches.py SPACE [--seeds 1 2 3] [--name NAME]

SPACE is a space file with one stage over stacks, or two stages. Every algorithm searches it with
every seed: the block GA, the plain GA and CMA-ES in the paper's encoding; for two stages also the
first stage alone with the whole budget. Same splits, baselines, final and holdout. Writes NAME.json
and prints the table. A run that exists is continued, so the command can be repeated.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

from evomerge import yaml12
from evomerge.report.summarize import summarize
from evomerge.report.summary import RunSummary
from evomerge.run.ledger import LedgerReader

HERE = Path(__file__).resolve().parent
ALGORITHMS = ("stack_ga", "ga", "cma_es")


def main() -> None:
    """Run what is missing, then print and save the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("space", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--name", default="searches")
    options = parser.parse_args()
    runs = HERE / "runs" / options.name
    file = yaml12.load(options.space)
    rows = []
    for variant in variants(file):
        for seed in options.seeds:
            path = written(file, variant, seed, options.space.resolve().parent, runs)
            out = runs / f"{variant}-{seed}"
            command = [sys.executable, "-m", "evomerge", "search", "--space", str(path)]
            subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
            rows.append({"variant": variant, "seed": seed, **outcome(out)})
            print(rows[-1], flush=True)
    (HERE / f"{options.name}.json").write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


def variants(file: dict) -> list[str]:  # type: ignore[type-arg]
    """What is compared."""
    return [*ALGORITHMS, "first stage alone"] if "stages" in file else list(ALGORITHMS)


def written(file: dict, variant: str, seed: int, root: Path, runs: Path) -> Path:  # type: ignore[type-arg]
    """The space file of one run, beside the original so that its paths hold."""
    changed = json.loads(json.dumps(file)) | {"seed": seed, "name": f"{variant}-{seed}"}
    if variant == "first stage alone":
        changed["space"] = changed.pop("stages")[0]["space"]
    elif "stages" in changed:
        changed["stages"][-1]["strategy"] = changed.get("strategy", {}) | {"algorithm": variant}
    else:
        changed["strategy"] = changed.get("strategy", {}) | {"algorithm": variant}
    runs.mkdir(parents=True, exist_ok=True)
    path = root / f".{runs.name}-{variant.replace(' ', '-')}-{seed}.yaml"
    path.write_text(yaml12.dumps(changed))
    return path


def outcome(out: Path) -> dict[str, object]:
    """What one run found."""
    summary = summarize(out)
    rows = {row.candidate: row for row in summary.holdout}
    assert summary.winner is not None
    winner = rows[summary.winner.candidate]
    bar = max((row for row in summary.holdout if row.kind != "winner"), key=lambda r: r.fitness)
    return {
        "holdout": round(winner.fitness, 4),
        "interval": [round(winner.low, 4), round(winner.high, 4)],
        "best_baseline": round(bar.fitness, 4),
        "result": winner.label,
        "layers": len(summary.route) or None,
        "usable": usable(out, summary),
        "items": summary.spending.items,
        "seconds": round(summary.spending.seconds),
    }


def usable(out: Path, summary: RunSummary) -> float | None:
    """The share of proposed stacks that were worth scoring."""
    with LedgerReader.open(out) as reader:
        stacks = {c.id for c in reader.candidates() if c.recipe.merge_method == "stack"}
        proposed = [e for e in reader.evaluations("search") if e.candidate in stacks]
    return round(1 - summary.spending.rejected / len(proposed), 3) if proposed else None


def table(rows: list[dict]) -> str:  # type: ignore[type-arg]
    """Medians over the seeds, with every seed's holdout."""
    lines = [
        "| search | holdout, median (each seed) | usable | items | s |",
        "|---|---|---|---|---|",
    ]
    for variant in dict.fromkeys(row["variant"] for row in rows):
        mine = [row for row in rows if row["variant"] == variant]
        each = ", ".join(f"{100 * row['holdout']:.1f}" for row in mine)
        middle = 100 * statistics.median(row["holdout"] for row in mine)
        shares = [row["usable"] for row in mine if row["usable"] is not None]
        share = f"{100 * statistics.median(shares):.0f} %" if shares else ""
        items = round(statistics.median(row["items"] for row in mine))
        seconds = round(statistics.median(row["seconds"] for row in mine))
        lines.append(f"| {variant} | {middle:.1f} ({each}) | {share} | {items:,} | {seconds} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
