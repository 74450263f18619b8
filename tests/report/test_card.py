from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from evomerge.errors import InvalidInput
from evomerge.report.card import render_card
from evomerge.report.summary import RunSummary


def front_matter(card: str) -> dict[str, Any]:
    opening, matter, _ = card.split("---\n", 2)
    assert opening == ""
    loaded = yaml.safe_load(matter)
    assert isinstance(loaded, dict)
    return loaded


def test_front_matter(summary: RunSummary) -> None:
    hub = replace(summary, base="mistralai/Mistral-7B-v0.1", parents=("a/b", "c/d+e/lora", "a/b"))
    assert front_matter(render_card(hub)) == {
        "base_model": ["mistralai/Mistral-7B-v0.1", "a/b", "c/d"],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "evomerge"],
    }


def test_local_parents_are_not_claimed_to_be_on_the_hub(summary: RunSummary) -> None:
    local = replace(summary, base="/data/base", parents=("./read", "~/write", "<b>x</b>"))
    card = render_card(local)
    assert "base_model" not in front_matter(card)
    assert "./read" in card


def test_every_row_and_the_verdict(summary: RunSummary) -> None:
    card = render_card(summary)
    assert "**Verdict: better than every baseline.**" in card
    for row in summary.holdout:
        assert f"| {row.label} |" in card or f"| **{row.label}** |" in card
    lines = [line for line in card.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(summary.holdout)
    assert {line.count("|") for line in lines} == {6}


def test_recipe_and_commands(summary: RunSummary) -> None:
    card = render_card(summary)
    (recipe,) = re.findall(r"```yaml\n(.*?)\n```", card, flags=re.DOTALL)
    assert yaml.safe_load(recipe) == yaml.safe_load(summary.winner_recipe)
    assert "evomerge merge recipe.yaml" in card
    assert "--seed 200" in card


def test_a_recipe_cannot_leave_its_block(summary: RunSummary) -> None:
    card = render_card(replace(summary, winner_recipe="a: |\n  ```\n  # out\n"))
    assert "````yaml\na: |\n  ```\n  # out\n````\n" in card


def test_names_are_literal(summary: RunSummary) -> None:
    name = "<b>x</b> | [y](z) *w* `v`\n# u"
    row = replace(summary.holdout[0], label=name)
    card = render_card(replace(summary, name=name, holdout=(row, *summary.holdout[1:])))
    assert "<b>" not in card
    escaped = r"&lt;b&gt;x&lt;/b&gt; \| \[y\](z) \*w\* \`v\` \# u"
    assert f"\n# {escaped}\n" in card
    assert f"| {escaped} | base model |" in card


def test_honest_verdicts(unverified: RunSummary, not_better: RunSummary) -> None:
    card = render_card(unverified)
    assert "**Verdict: unverified.**" in card
    assert "nothing was held back, so these numbers are probably too high" in card
    card = render_card(not_better)
    assert "**Verdict: no better than the baselines.** Nothing beat the baselines" in card


def test_tasks_get_their_own_table(two_tasks: RunSummary) -> None:
    card = render_card(two_tasks)
    start = card.index(
        "| model | read_write: exact_match | wiki: word_perplexity |\n|---|---|---|\n"
    )
    body = card[start:].split("\n\n")[0].splitlines()[2:]
    assert len(body) == len(two_tasks.holdout)
    assert body[0] == "| **merge 171 (late mean)** | 93.6 % ± 0.9 | 2.898 ± 0.120 |"


def test_no_card_without_a_winner(running: RunSummary) -> None:
    with pytest.raises(InvalidInput, match="no model card without a winner"):
        render_card(running)


@pytest.mark.parametrize("case", ["summary", "unverified", "not_better", "two_tasks"])
def test_cards_are_stable_and_complete(case: str, request: pytest.FixtureRequest) -> None:
    summary = request.getfixturevalue(case)
    card = render_card(summary)
    assert card == render_card(summary)
    assert "\n\n\n" not in card
    assert not re.search(r"\b(nan|None)\b", card)


def test_missing_numbers_are_said_to_be_missing(summary: RunSummary) -> None:
    broken = replace(summary.holdout[0], fitness=math.nan, low=math.nan, high=math.nan)
    card = render_card(replace(summary, holdout=(broken, *summary.holdout[1:])))
    assert not re.search(r"\bnan\b", card)
    assert "| base | base model | n/a |" in card
