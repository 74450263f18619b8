"""Writes the tables of README.md from results.json.

python experiments/parity/tables.py
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

HERE = Path(__file__).resolve().parent
Entries: TypeAlias = Mapping[str, Mapping[str, Any]]


def methods(entries: Entries) -> list[str]:
    """Conformance by method."""
    lines = [
        "| method, parents | tensors | identical | ≤ 1 ulp | ≤ 2 | ≤ 8 | farther; ours not exact "
        "| worst relative | elements tied at a threshold |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in entries.items():
        counts = [entry[key] for key in ("tensors", "identical", "within_1_ulp", "within_2_ulps")]
        far = f"{entry['farther_than_the_limit']}; {entry['of_those_ours_is_not_exact']}"
        tied = share(entry["share_of_elements_tied_at_a_threshold"])
        cells = [*counts, entry["within_8_ulps"], far, f"{entry['worst_relative']:.1e}", tied]
        lines.append(row(name, *cells))
    return lines


def trimming(entries: Entries) -> list[str]:
    """Equal magnitudes at thresholds."""
    lines = ["| method | tensors | elements | of those on a threshold |", "|---|---|---|---|"]
    for name, entry in entries.items():
        keys = ("tensors", "elements", "elements_on_a_threshold")
        lines.append(row(name, *(f"{entry[key]:,}" for key in keys)))
    return lines


def random(entries: Entries) -> list[str]:
    """Masks in distribution."""
    lines = [
        "| method and setting | kept: ours, mergekit | L1 ratio: ours, mergekit "
        "| worst octile of ranks: ours, mergekit | kept by both masks: ours, mergekit |",
        "|---|---|---|---|---|",
    ]
    keys = ("kept", "l1_ratio", "worst_octile_gap", "kept_in_both")
    for name, entry in entries.items():
        lines.append(row(name, *(pair(entry, key) for key in keys)))
    return lines


def recipes(entries: Entries) -> list[str]:
    """Whole recipes."""
    lines = [
        "| recipe | parents → result | tensors | largest difference | relative to the tensor "
        "| worst ulps | unequal elements | of those tied at a threshold |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in entries.items():
        lines.append(
            row(
                name + (f" ({entry['known_difference']})" if entry["known_difference"] else ""),
                f"{entry['parents']} → {entry['result']}",
                entry["tensors"],
                f"{entry['largest_difference']:.1e}",
                f"{entry['relative_to_largest_value']:.1e}",
                f"{entry['worst_ulps']:g}",
                share(entry["share_of_elements_unequal"]),
                share(entry["share_of_elements_unequal_and_tied"]),
            )
        )
    return lines


def densities(entries: Entries) -> list[str]:
    """Realised densities on real weights."""
    lines = [
        "| method | requested | changed by the fine-tune | expected | ours | mergekit "
        "| worst tensor: ours, mergekit |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, entry in entries.items():
        keys = ("changeable", "expected", "ours", "theirs")
        shares = (f"{entry[f'share_{key}']:.5f}" for key in keys)
        worst = f"{entry['worst_tensor_ours']:.1e}, {entry['worst_tensor_theirs']:.1e}"
        lines.append(row(name.split(",")[0], entry["requested"], *shares, worst))
    return lines


def refusals(entries: Entries) -> list[str]:
    """What mergekit says where it fails."""
    lines = ["| case | mergekit |", "|---|---|"]
    return lines + [row(name, entry["mergekit"].strip()) for name, entry in entries.items()]


SECTIONS: Mapping[str, Callable[[Entries], list[str]]] = {
    "methods": methods,
    "trimming": trimming,
    "random": random,
    "recipes": recipes,
    "densities": densities,
    "refusals": refusals,
}


def row(*cells: object) -> str:
    """One line of a table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def share(value: float) -> str:
    """A share in percent."""
    return f"{value:.3%}" if value else "0"


def pair(entry: Mapping[str, Any], key: str) -> str:
    """One measurement by both programs."""
    if f"{key}_ours" not in entry:
        return ""
    return f"{entry[f'{key}_ours']:.5f}, {entry[f'{key}_theirs']:.5f}"


def _between(body: str, marks: re.Match[str]) -> str:
    return f"{marks[1]}{body}\n{marks[2]}"


def main() -> None:
    """Replace what stands between the marks of each section."""
    results = json.loads((HERE / "results.json").read_text(encoding="utf-8"))
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    for section, table in SECTIONS.items():
        body = "\n".join(table(results.get(section, {})))
        marks = rf"(<!-- {section} -->\n).*?(<!-- /{section} -->)"
        text, count = re.subn(marks, partial(_between, body), text, flags=re.S)
        assert count == 1, f"README.md has no marks for {section}"
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
