"""Runs the quickstart on several training seeds and writes results.json and a table from it.

    python experiments/quickstart/seeds.py 300 301 302 303

Every seed trains its own parents; nothing else changes. Finished runs are not repeated.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SPACE = ROOT / "search_spaces" / "quickstart.yaml"
RESULTS = HERE / "results.json"


def run_seed(seed: int) -> dict[str, Any]:
    """Train the parents of one seed, search, and return the holdout rows."""
    subprocess.run(
        [sys.executable, str(HERE / "make_parents.py"), "--seed", str(seed)], check=True, cwd=ROOT
    )
    space = ROOT / "runs" / f"quickstart-seed-{seed}.yaml"
    text = SPACE.read_text(encoding="utf-8").replace("seed-7", f"seed-{seed}")
    text = text.replace("../runs/", "")  # the copy stands in runs/ itself
    space.write_text(text, encoding="utf-8")
    run = ROOT / "runs" / f"quickstart-seed-{seed}"
    evomerge = [sys.executable, "-m", "evomerge"]
    subprocess.run([*evomerge, "search", "--space", str(space), "--out", str(run)], check=True)
    done = subprocess.run(
        [*evomerge, "status", str(run), "--json"], check=True, capture_output=True, text=True
    )
    summary = json.loads(done.stdout)
    return {
        "seed": seed,
        "better": summary["better"],
        "winner": summary["winner"]["label"],
        "items": summary["spending"]["items"],
        "claimed": next(
            round(100 * row["fitness"], 1)
            for row in summary["selection"]
            if row["candidate"] == summary["winner"]["candidate"]
        ),
        "holdout": [
            {
                "label": "evolved" if row["kind"] == "winner" else row["label"],
                "percent": [round(100 * row[key], 1) for key in ("fitness", "low", "high")],
                "p_value": row["comparison"] and row["comparison"]["p_value"],
            }
            for row in summary["holdout"]
        ],
    }


def table(results: list[dict[str, Any]]) -> str:
    """The holdout of all seeds as a Markdown table, one column per seed."""
    labels = dict.fromkeys(row["label"] for result in results for row in result["holdout"])
    by_seed = [{row["label"]: row["percent"] for row in r["holdout"]} for r in results]
    lines = ["| seed | " + " | ".join(str(r["seed"]) for r in results) + " |"]
    lines.append("|---|" + "---|" * len(results))
    ordered = [label for label in labels if label != "evolved"] + ["evolved"]
    for label in ordered:
        cells = [_cell(found.get(label)) for found in by_seed]
        bold = "**" if label == "evolved" else ""
        lines.append(f"| {bold}{label}{bold} | " + " | ".join(cells) + " |")
    claimed = [str(result["claimed"]) for result in results]
    lines.append("| claimed on selection | " + " | ".join(claimed) + " |")
    return "\n".join(lines)


def _cell(percent: list[float] | None) -> str:
    return "" if percent is None else f"{percent[0]} [{percent[1]}, {percent[2]}]"


def main() -> None:
    """Run the seeds named on the command line."""
    results = [run_seed(int(argument)) for argument in sys.argv[1:]]
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
