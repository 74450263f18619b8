"""The plain sentences about what a run's record tells, and what they take for granted."""

from __future__ import annotations

import math
from dataclasses import dataclass

from evomerge.report.formats import Scale, count
from evomerge.report.insight import MOST_SHOWN, Insight, SearchInsight
from evomerge.report.won_layers import CLEAR, LEANING, WonLayers

CANNOT_TELL = "Cannot tell"


@dataclass(frozen=True)
class Told:
    """A finding and what it rests on."""

    finding: str
    ground: str


def genes_told(insight: SearchInsight) -> Told:
    """Which genes mattered, or that the trials cannot tell."""
    found, what = insight.importance, "traits of the path" if insight.stacks else "genes"
    compared = (
        f"{count(found.trials, 'candidate')} in {count(found.generations, 'generation')} of two or "
        "more"
    )
    if math.isnan(found.skill):
        return Told(f"{CANNOT_TELL}: there is too little to compare.", f"Compared: {compared}.")
    luck = f"chance alone reaches {_percent(max(found.luck, 0.0))} once in fifty times"
    if not insight.genes:
        return Told(
            f"{CANNOT_TELL}: the {what} predict {_percent(max(found.skill, 0.0))} of the "
            f"differences in score, and {luck}.",
            f"Compared: {compared}, each with those that answered the same items. More candidates, "
            "or more items for each, would tell more.",
        )
    clear = [line for line in insight.genes if line.effect.clear]
    rest = len(insight.genes) - len(clear)
    named = "; ".join(
        f"{line.name} ({_percent(line.effect.share)}{', ' if line.advice else ''}{line.advice})"
        for line in clear[:4]
    )
    finding = f"{count(len(clear), what.partition(' ')[0].rstrip('s'))} clearly mattered"
    finding = (
        f"{finding}: {named}{' and others' if len(clear) > 4 else ''}."
        if clear
        else (f"Together the {what} mattered, but no single one clearly.")
    )
    if clear and rest:
        finding += f" For the other {rest} the record cannot tell."
    return Told(
        finding,
        f"From {compared}; only candidates that answered the same items are compared. A quadratic "
        f"surrogate predicts {_percent(found.skill)} of their differences in generations it did "
        f"not see ({luck}); the rest is luck with items and what a quadratic misses. Shares are "
        "for the range that the search tried, and genes that moved together share credit."
        + _pairs_left_out(insight)
        + (" The score is the weighted mean of the objectives." if insight.several else "")
        + (f" The first {MOST_SHOWN} are shown." if len(insight.genes) > MOST_SHOWN else ""),
    )


def _pairs_left_out(insight: SearchInsight) -> str:
    surrogate = insight.importance.surrogate
    if surrogate is None or surrogate.basis.with_pairs:
        return ""
    return " With so many of them, what two do only together was left out."


def gain_told(insight: SearchInsight, scale: Scale) -> Told:
    """What twice the items would add, or that the generations cannot tell."""
    found, seen = insight.gain, count(len(insight.levels), "generation")
    if found is None:
        return Told(
            f"{CANNOT_TELL}: the search has {seen}, too few for a curve.",
            "It takes six generations whose means differ.",
        )
    span = f"95 %: {scale.signed(found.low)} to {scale.signed(found.high)}"
    ground = (
        f"Saturating curves fitted to the means of {seen}, averaged by how well they fit. The "
        "interval allows for the luck of each generation's items and for a slow wander that no "
        "curve describes. It is about the mean of a generation; the result is usually above it. It "
        "takes for granted that the search goes on as it did."
    )
    amount = scale.lead(found.expected)
    if not found.told:
        return Told(
            f"{CANNOT_TELL} what twice the items would add: {amount} is in the middle of what is "
            f"possible ({span}), which is wider than what the search has gained so far.",
            ground,
        )
    return Told(f"Twice the items would be expected to add {amount} ({span}).", ground)


def won_told(won: WonLayers, scale: Scale) -> Told:
    """Who leads where, and how sure that is."""
    decided = [group for group in won.groups if group.winner is not None]
    sure = [sum(group.sure == word for group in decided) for word in (CLEAR, LEANING)]
    rest = len(won.groups) - sum(sure)
    finding = (
        f"Of {count(len(won.groups), 'layer group')}, {sure[0] or 'none'} clearly "
        f"{'belong' if sure[0] > 1 else 'belongs'} to one parent and {sure[1] or 'none'} "
        f"{'lean' if sure[1] > 1 else 'leans'} to one."
    )
    if rest:
        finding += f" For the other {rest} the search cannot tell: equal weights may do as well."
    costs = sorted((group for group in decided if group.sure == CLEAR), key=lambda g: -g.cost)
    if costs:
        first = costs[0]
        interval = scale.interval(first.low, first.high)
        finding += (
            f" Most depends on {_place(first.label)}: with equal weights there the score would "
            f"drop by {scale.lead(first.cost).removeprefix('+')} {interval}."
        )
    return Told(
        finding,
        "Number and shade: the weight of the parent in the result; frame: the larger one. "
        "\u25cf clear: the surrogate expects a loss, its 95 % interval above zero, if the two "
        "largest weights were equal. \u25d0 leaning: nine of ten of the search's last candidates "
        "have the same parent ahead, but the loss is not certain. \u25cb cannot tell: the score is "
        "flat in that direction, or it was not tried.",
    )


def insight_lines(insight: Insight, scale: Scale) -> tuple[str, ...]:
    """The findings about the last search, for a terminal."""
    lines: list[Told] = []
    for search in insight.searches[-1:]:
        lines.append(genes_told(search))
        lines += [] if search.several else [gain_told(search, scale)]
    return tuple(line.finding for line in lines)


def _place(label: str) -> str:
    if not label[0].isdigit():
        return f"the {label}"
    return f"layers {label}" if "-" in label else f"layer {label}"


def _percent(share: float) -> str:
    return f"{100.0 * share:.0f} %"
