"""A realistic finished run: two parents by six layer groups, fifteen generations."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from evomerge import yaml12
from evomerge.report.insight import Insight, explain
from evomerge.report.summary import (
    Comparison,
    DepthPoint,
    DepthProfile,
    GenerationPoint,
    ModelRow,
    RouteStop,
    RunSummary,
    Spending,
    StageLine,
)
from evomerge.score import TaskScore
from tests.report.recorded_runs import searched

GROUPS = ("embeddings", "0-7", "8-15", "16-23", "24-31", "head")
READ, WRITE, BASE = "parents/read", "parents/write", "parents/base"
TRUTH = (
    (0, "base", "base", 0.002),
    (1, "read", "parent", 0.0),
    (2, "write", "parent", 0.104),
    (3, "uniform soup", "baseline", 0.320),
    (4, "task arithmetic 0.3", "baseline", 0.221),
    (5, "task arithmetic 0.5", "baseline", 0.588),
    (6, "task arithmetic 1", "baseline", 0.765),
    (7, "TIES 0.5", "baseline", 0.755),
    (8, "DARE-TIES 0.5", "baseline", 0.758),
    (171, "merge 171 (late mean)", "winner", 0.936),
)
VALUES = {
    ("weight", READ): (0.12, 0.97, 0.83, 0.61, 0.42, 0.15),
    ("weight", WRITE): (0.08, 0.11, 0.39, 0.78, 1.04, 1.21),
    ("density", READ): (0.52, 0.91, 0.88, 0.63, 0.47, 0.40),
    ("density", WRITE): (0.44, 0.31, 0.58, 0.86, 0.93, 0.97),
}


def make_row(
    candidate: int, label: str, kind: str, fitness: float, *, items: int, best: float | None = None
) -> ModelRow:
    """A row with a Wilson interval; `best` is the winner's fitness on the same items."""
    z = 1.96
    centre = (fitness + z * z / (2 * items)) / (1 + z * z / items)
    spread = fitness * (1 - fitness) / items + z * z / (4 * items * items)
    half = z * math.sqrt(spread) / (1 + z * z / items)
    comparison = None
    if best is not None:
        lead = best - fitness
        discordant = math.sqrt((abs(lead) + 0.04 - lead * lead) / items)
        comparison = Comparison(
            lead,
            lead - z * discordant,
            lead + z * discordant,
            math.erfc(lead / discordant / math.sqrt(2)) / 2,
        )
    stderr = math.sqrt(fitness * (1 - fitness) / items)
    scores = (TaskScore("read_write", "exact_match", fitness, stderr, items),)
    return ModelRow(
        candidate, label, kind, fitness, centre - half, centre + half, scores, comparison
    )


def unchanged(_: int) -> float:
    """No shift."""
    return 0.0


def shaken(candidate: int) -> float:
    """What another sample of items makes of a candidate's score."""
    return 0.012 * math.sin(candidate)


def make_rows(items: int, shift: Callable[[int], float]) -> tuple[ModelRow, ...]:
    """Every model of `TRUTH` on one split; `shift` moves the fitness of a candidate."""
    shown = {row[0]: min(max(row[3] + shift(row[0]), 0.0), 1.0) for row in TRUTH}
    best = shown[171]
    return tuple(
        make_row(c, label, kind, shown[c], items=items, best=None if c == 171 else best)
        for c, label, kind, _ in TRUTH
    )


def make_history(generations: int) -> tuple[GenerationPoint, ...]:
    """A climb from the best baseline to the winner with minibatch noise."""
    noise = np.random.default_rng(7).normal(0.0, 0.018, size=(generations, 2))
    points = []
    for g in range(generations):
        mean = 0.93 - 0.42 * math.exp(-g / 4.2) + noise[g, 0]
        best = min(mean + 0.11 * math.exp(-g / 9) + abs(noise[g, 1]), 1.0)
        points.append(GenerationPoint(g + 1, 2400 + 12 * 40 * (g + 1), best, mean))
    return tuple(points)


def make_recipe() -> str:
    """The winner as mergekit YAML, gradients over the layer groups."""
    models = [
        {
            "model": model,
            "parameters": {
                name: [{"filter": "embed", "value": v[0]}, {"value": list(v[1:5])}]
                for (name, owner), v in VALUES.items()
                if owner == model
            },
        }
        for model in (READ, WRITE)
    ]
    return yaml12.dumps(
        {"merge_method": "ties", "base_model": BASE, "models": models, "dtype": "bfloat16"}
    )


@pytest.fixture
def summary() -> RunSummary:
    """A finished run whose winner beats every baseline on the holdout."""
    holdout = make_rows(750, unchanged)
    selection = make_rows(1250, shaken)
    baselines = tuple(
        make_row(c, label, kind, min(f + 0.003 * (c % 3), 1.0), items=300)
        for c, label, kind, f in TRUTH[:-1]
    )
    return RunSummary(
        name="read-write-ties",
        state="finished",
        method="ties",
        metric="exact_match on read_write",
        base=BASE,
        parents=(READ, WRITE),
        algorithm="cma_es",
        seed=200,
        dimensions=24,
        split_sizes=(("search", 3000), ("selection", 1250), ("holdout", 750)),
        test_splits=(),
        near_duplicates=0,
        minibatch=40,
        spending=Spending(180, 180, 2, 0, 25_950, 30_000, 203.4, 28_800.0, 61.2, 131.9),
        history=make_history(15),
        baselines=baselines,
        selection=selection[5:],
        holdout=holdout,
        winner=holdout[-1],
        winner_recipe=make_recipe(),
        better=True,
        verdict="On the selection items merge 171 (late mean) beat the best baseline, "
        "DARE-TIES 0.5 (+17.8 points, p = 2.1e-48).",
        profiles=tuple(
            DepthProfile(parameter, model, GROUPS, values)
            for (parameter, model), values in VALUES.items()
        ),
        route=(),
        stages=(StageLine("", "ties", "cma_es", 24, ""),),
        depths=(),
        front=None,
        constraints=(),
        broken=False,
        warnings=("11 of 25,950 answers were cut off at max_gen_toks.",),
        versions=(
            ("evomerge", "0.1.0"), ("torch", "2.13.0"), ("transformers", "5.23.0"),
            ("lm_eval", "0.4.13"), ("cma", "4.4.0"), ("python", "3.11.2"),
        ),
    )  # fmt: skip


@pytest.fixture
def stacked(summary: RunSummary) -> RunSummary:
    """A finished run of two stages whose winner is a stack with a repeated block and a scale."""
    layers = [(READ, i) for i in range(18)] + [(WRITE, i) for i in range(12, 24)]
    layers += [(READ, i) for i in range(20, 30)]
    route = tuple(
        RouteStop(model, layer, 1.15 if place == 18 else 1.0)
        for place, (model, layer) in enumerate(layers)
    )
    tried = [DepthPoint(40 + i, 28 + i % 9, 0.6 + 0.02 * (i % 5), "search") for i in range(40)]
    judged = [
        DepthPoint(row.candidate, 40 if row.kind == "winner" else 30, row.fitness, row.kind)
        for row in summary.holdout
    ]
    return replace(
        summary,
        method="stack",
        algorithm="stack_ga",
        dimensions=240,
        profiles=(),
        route=route,
        stages=(
            StageLine("ps", "ties", "cma_es", 24, "On the selection items merge 90 beat READ."),
            StageLine("dfs", "stack", "stack_ga", 240, summary.verdict),
        ),
        depths=(*tried, *judged),
        spending=replace(summary.spending, rejected=12),
    )


@pytest.fixture
def running(summary: RunSummary) -> RunSummary:
    """The same run after its third generation."""
    return replace(
        summary,
        state="running",
        spending=Spending(44, 180, 0, 0, 4_160, 30_000, 41.0, None, 12.0, 27.5),
        history=summary.history[:3],
        selection=(),
        holdout=(),
        winner=None,
        winner_recipe="",
        better=None,
        verdict="",
        profiles=(),
        warnings=(),
    )


@pytest.fixture
def unverified(summary: RunSummary) -> RunSummary:
    """A finished run without a holdout."""
    return replace(
        summary,
        split_sizes=(("search", 3000), ("selection", 2000), ("holdout", 0)),
        holdout=(),
        winner=summary.selection[-1],
        better=None,
    )


@pytest.fixture
def not_better(summary: RunSummary) -> RunSummary:
    """A finished run in which the best baseline was kept."""
    rows = tuple(
        make_row(c, label, kind, 0.741 if kind == "winner" else f, items=750, best=0.765)
        for c, label, kind, f in TRUTH
    )
    kept = replace(rows[6], comparison=None)
    return replace(
        summary,
        holdout=(*rows[:6], kept, *rows[7:]),
        winner=kept,
        better=False,
        verdict="On the selection items merge 171 (late mean) came closest to task arithmetic 1 "
        "but did not beat it (+0.4 points, p = 0.31), so task arithmetic 1 is handed over.",
        profiles=(),
    )


@pytest.fixture
def two_tasks(summary: RunSummary) -> RunSummary:
    """A finished run on a reasoning task and a perplexity: fitness is not a share."""

    def rescored(row: ModelRow) -> ModelRow:
        shift = row.fitness - 2.4
        words = TaskScore("wiki", "word_perplexity", math.exp(2.0 - row.fitness), 0.12, 200)
        return replace(
            row,
            fitness=shift,
            low=shift - 0.021,
            high=shift + 0.021,
            scores=(*row.scores, words),
        )

    def all_rescored(rows: tuple[ModelRow, ...]) -> tuple[ModelRow, ...]:
        return tuple(rescored(row) for row in rows)

    points = (replace(p, best=p.best - 2.4, mean=p.mean - 2.4) for p in summary.history)
    return replace(
        summary,
        history=tuple(points),
        baselines=all_rescored(summary.baselines),
        selection=all_rescored(summary.selection),
        holdout=all_rescored(summary.holdout),
    )


@pytest.fixture(scope="session")
def insight(tmp_path_factory: pytest.TempPathFactory) -> Insight:
    """What a whole search told whose weights should be 0.9 for a and 0.2 for b everywhere."""
    return explain(searched(tmp_path_factory.mktemp("told") / "run", candidates=250))


@pytest.fixture(scope="session")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Insight:
    """What a search told that was over after two generations."""
    return explain(searched(tmp_path_factory.mktemp("unknown") / "run", candidates=32))
