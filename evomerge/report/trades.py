"""From what is on record to trades: the front of several objectives, and constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evomerge.candidate import SEARCH
from evomerge.constraints import Constraint, finding, violation
from evomerge.front import Point, dominates, hypervolume, worst
from evomerge.report.recorded import RecordedRun, finalists, label_of
from evomerge.report.summary import ConstraintLine, CoverPoint, FrontSummary, TradeRow, TradeScore
from evomerge.run.final import SIGNIFICANCE, Results
from evomerge.run.ledger import Tally
from evomerge.run.stage_final import REFERENCE
from evomerge.score import Objective, TaskGoal, TaskOutcomes, task_score, totals
from evomerge.statistics import PairedDifference, paired_difference


def front_summary(
    run: RecordedRun, split: str, results: Mapping[int, Results], winner: int | None
) -> FrontSummary | None:
    """The trades among the models with `results` on the items of `split`."""
    fixed = [number for number in results if number in run.baselines]
    early = run.results("baseline")
    if not run.objective.trades or not early:
        return None
    members = [] if run.decision is None else [int(c) for c in run.decision["front"]]
    members = [number for number in members if number in results]
    last = finalists(run) if run.decision is not None else {}
    dropped = [c for c in last if c not in members and c not in run.baselines]
    points = {number: _point(run, outcomes) for number, outcomes in results.items()}
    tests = _Tests(run, results, members, winner)
    reference = worst([points[c] for c in fixed] or [_point(run, r) for r in early.values()])
    first = {c: _point(run, outcomes) for c, outcomes in early.items() if c in run.baselines}
    bottom = worst(list(first.values()))
    return FrontSummary(
        tasks=tuple(goal.task for goal in run.objective.trades),
        split=split,
        rows=tuple(
            TradeRow(c, label_of(run, c), place, tests.scores(c), eligible(run, split, results, c))
            for place, numbers in (("front", members), ("baseline", fixed))
            for c in numbers
            if place == "front" or c not in members
        ),
        dropped=tuple(
            TradeRow(
                c,
                label_of(run, c),
                "dominated",
                _plain(run, last[c]),
                eligible(run, "selection", last, c),
            )
            for c in dropped
        ),
        clearly_dropped=_clearly_dropped(run, last, members, dropped),
        reference=reference,
        covered=hypervolume([points[c] for c in members], reference),
        covered_before=hypervolume(
            [points[c] for c in fixed if eligible(run, split, results, c)], reference
        ),
        history=_history(run, bottom),
        before=hypervolume(list(first.values()), bottom),
    )


def constraint_lines(
    run: RecordedRun, split: str, results: Mapping[int, Results], shown: Sequence[int]
) -> tuple[ConstraintLine, ...]:
    """What the items of `split` say about every constraint, for each of the models `shown`."""
    lines: list[ConstraintLine] = []
    for constraint in run.constraints:
        text = constraint.text(run.objective.goal(constraint.task))
        for number in shown:
            reference = _reference(run, split, results, constraint, results[number])
            if constraint.of is not None and reference is None:
                continue
            found = finding(run.objective, constraint, results[number], reference)
            lines.append(
                ConstraintLine(
                    candidate=number,
                    label=label_of(run, number),
                    text=text,
                    value=found.value,
                    limit=found.limit,
                    room=found.room.value,
                    low=found.room.low,
                    high=found.room.high,
                    kept=found.kept.value,
                )
            )
    return tuple(lines)


def eligible(run: RecordedRun, split: str, results: Mapping[int, Results], number: int) -> bool:
    """Whether a model keeps every constraint on these items, by point estimates."""
    for constraint in run.constraints:
        reference = _reference(run, split, results, constraint, results[number])
        if constraint.of is not None and reference is None:
            continue
        known = {} if reference is None else {str(constraint.of): totals(reference)}
        if violation(run.objective, [constraint], totals(results[number]), known) > 0.0:
            return False
    return True


def _reference(
    run: RecordedRun,
    split: str,
    results: Mapping[int, Results],
    constraint: Constraint,
    ours: Results,
) -> Results | None:
    """What the model that a constraint compares with did on the same items."""
    if constraint.of is None:
        return None
    models = [number for number, entry in run.baselines.items() if entry["model"] == constraint.of]
    known = results if split != "selection" else run.results(REFERENCE)
    found = next((known[number] for number in reversed(models) if number in known), None)
    if found is None:
        return None
    items = {result.task: frozenset(result.items()) for result in ours}
    return tuple(result.only(items[result.task]) for result in found if result.task in items)


@dataclass(frozen=True)
class _Tests:
    """Paired comparisons of the front with the winner, one per model and objective."""

    run: RecordedRun
    results: Mapping[int, Results]
    members: Sequence[int]
    winner: int | None

    def scores(self, number: int) -> tuple[TradeScore, ...]:
        """The model in every objective."""
        goals = self.run.objective.trades
        plain = _plain(self.run, self.results[number])
        if self.winner is None or self.winner not in self.results or number == self.winner:
            return plain
        clear = self._clear()
        return tuple(
            TradeScore(
                score.task,
                score.metric,
                score.value,
                score.stderr,
                self._versus(goal, number).value,
                (number, goal.task) in clear,
            )
            for goal, score in zip(goals, plain, strict=True)
        )

    def _clear(self) -> set[tuple[int, str]]:
        tests = {
            (number, goal.task): _two_sided(
                _alone(goal, self.results[number]), _alone(goal, self.results[self._winner]), goal
            )
            for number in self.members
            if number != self.winner
            for goal in self.run.objective.trades
        }
        return holm(tests)

    @property
    def _winner(self) -> int:
        assert self.winner is not None, "asked for with a winner only"
        return self.winner

    def _versus(self, goal: TaskGoal, number: int) -> PairedDifference:
        ours, theirs = self.results[number], self.results[self._winner]
        return paired_difference(Objective((goal,)), _alone(goal, ours), _alone(goal, theirs))


def holm(p_values: Mapping[tuple[int, str], float]) -> set[tuple[int, str]]:
    """The tests that are significant with all of them considered (Holm 1979)."""
    found: set[tuple[int, str]] = set()
    ordered = sorted(p_values, key=lambda key: (p_values[key], key))
    for done, key in enumerate(ordered):
        if p_values[key] * (len(ordered) - done) >= SIGNIFICANCE:
            break
        found.add(key)
    return found


def _two_sided(ours: Results, theirs: Results, goal: TaskGoal) -> float:
    objective = Objective((goal,))
    sides = (paired_difference(objective, *pair) for pair in ((ours, theirs), (theirs, ours)))
    return min(1.0, 2.0 * min(side.p_value for side in sides))


def _alone(goal: TaskGoal, results: Results) -> tuple[TaskOutcomes, ...]:
    return tuple(result for result in results if result.task == goal.task)


def _point(run: RecordedRun, results: Results) -> Point:
    return run.objective.point(totals(results))


def _plain(run: RecordedRun, results: Results) -> tuple[TradeScore, ...]:
    found = [task_score(goal, *_alone(goal, results)) for goal in run.objective.trades]
    return tuple(TradeScore(s.task, s.metric, s.value, s.stderr, 0.0, False) for s in found)


def _clearly_dropped(
    run: RecordedRun, last: Mapping[int, Results], members: Sequence[int], dropped: Sequence[int]
) -> int:
    """How many of the dropped are clearly worse than a member that dominates them."""
    tests: dict[tuple[int, str], float] = {}
    for number in dropped:
        point = _point(run, last[number])
        above = [m for m in members if m in last and dominates(_point(run, last[m]), point)]
        if not above:
            continue
        rival = max(above, key=lambda m: sum(_point(run, last[m])))
        for goal in run.objective.trades:
            pair = _alone(goal, last[rival]), _alone(goal, last[number])
            tests[number, goal.task] = paired_difference(Objective((goal,)), *pair).p_value
    return len({number for number, _ in holm(tests)})


def _history(run: RecordedRun, reference: Point) -> tuple[CoverPoint, ...]:
    """The volume of every complete generation, over the items spent until then."""
    spent = sum(t.items for t in run.tallies if t.stage == "baseline")
    generations: dict[int, list[Tally]] = {}
    for tally in run.tallies:
        if tally.stage == SEARCH and tally.candidate >= run.first:
            number = run.candidates.generation(tally.candidate)
            generations.setdefault(number, []).append(tally)
    points: list[CoverPoint] = []
    for _, members in sorted(generations.items()):
        spent += sum(member.items for member in members)
        known = [run.objective.point(t.totals) for t in members if t.totals is not None]
        if known and len(members) in run.populations:
            points.append(CoverPoint(spent, hypervolume(known, reference)))
    return tuple(points)
