from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from evomerge.candidate import Assignment, Failed, Scored
from evomerge.recipe import Recipe, Source
from evomerge.run.calibration import Calibration, Rehearsal, Timings, rehearse
from evomerge.run.process_memory import held, watched
from tests.run.fakes import items

METHODS = ("ties", "linear", "passthrough")
RECIPES = tuple(Recipe(method, (Source("a"), Source("b"))) for method in METHODS)
REHEARSAL = Rehearsal(RECIPES, items("f", 8), items("u", 64), items("m", 256))


@dataclass
class Clocked:
    """A worker on whose clock a first build costs 4, a further one 1, an item `item` seconds."""

    item: float = 0.01
    fails: tuple[str, ...] = ()
    now: float = 0.0
    seen: list[tuple[str, int]] = field(default_factory=list)

    def evaluate(self, assignment: Assignment) -> Scored | Failed:
        method = assignment.recipe.merge_method
        build = 1.0 if method in [name for name, _ in self.seen] else 4.0
        self.seen.append((method, assignment.items.count))
        if method in self.fails:
            return Failed("error", "no")
        score = 0.2 + self.item * assignment.items.count
        self.now += build + score
        return Scored((), build, score)


def run(worker: Clocked, rehearsal: Rehearsal = REHEARSAL) -> Timings:
    found = rehearse(worker, rehearsal, lambda: worker.now)
    assert isinstance(found, Timings)
    return found


def test_a_quick_worker_shows_every_method_and_two_sizes() -> None:
    worker = Clocked()
    found = run(worker)
    assert found.first == dict.fromkeys(METHODS, 4.0)
    assert found.further == dict.fromkeys(METHODS, 1.0)
    costs = Calibration(3.0, found, 1, 2, 0).costs
    assert costs.start == 3.0
    assert costs.call == pytest.approx(0.2)
    assert costs.item == pytest.approx(0.01)
    assert worker.now < 31


def test_a_slow_worker_is_stopped_in_time() -> None:
    worker = Clocked(item=0.3)
    found = run(worker)
    assert worker.now <= 30 + 0.3 * 64 + 1
    assert max(count for count, _ in found.scores) == 64
    costs = Calibration(3.0, found, 1, 2, 0).costs
    assert costs.score(64) == pytest.approx(0.2 + 0.3 * 64)


def test_a_very_slow_worker_is_asked_once() -> None:
    worker = Clocked(item=10.0)
    found = run(worker)
    assert worker.seen == [("ties", 8)]
    assert found.scores == ((8, 80.2),)
    assert found.further == {"ties": 4.0}


def test_a_start_that_fails_is_an_answer_and_another_recipe_is_left_out() -> None:
    worker = Clocked(fails=("ties",))
    assert rehearse(worker, REHEARSAL, lambda: worker.now) == Failed("error", "no")
    found = run(Clocked(fails=("linear",)))
    assert set(found.first) == {"ties", "passthrough"}


def test_a_search_of_few_items_has_one_size() -> None:
    few = items("f", 8)
    found = run(Clocked(), replace(REHEARSAL, usual=few, many=few))
    assert [count for count, _ in found.scores] == [8]
    assert Calibration(0.0, found, 1, 2, 0).costs.score(8) == pytest.approx(0.28)


def test_scores_that_grow_faster_than_their_items_have_no_negative_part() -> None:
    bent = Timings({"ties": 1.0}, {"ties": 1.0}, ((64, 0.1), (256, 4.0)))
    costs = Calibration(0.0, bent, 1, 2, 0).costs
    assert costs.call == 0.0
    assert costs.score(256) == pytest.approx(4.0)
    falling = Timings({"ties": 1.0}, {"ties": 1.0}, ((64, 2.0), (256, 1.0)))
    assert Calibration(0.0, falling, 1, 2, 0).costs.score(512) == pytest.approx(2.0)


def test_the_peak_of_a_block_is_seen_after_it_has_passed() -> None:
    before = held().own
    with watched() as most:
        block = np.ones(20_000_000)
        block += 1.0
        del block
    assert most.own - before > 150_000_000
    assert held().own - before < 100_000_000


def test_memory_is_read_from_the_kernels_words(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmHWM:\t  900 kB\nRssAnon:\t  512 kB\nRssFile:\t  64 kB\n")
    found = held(status)
    assert (found.own, found.mapped) == (512 << 10, 64 << 10)
