from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.candidate import Candidate, Failed, Outcome, Scored
from evomerge.errors import Interrupted, InvalidInput, RunLocked
from evomerge.recipe import Clause, Gradient, Parameters, Recipe, Setting, Slice, Source
from evomerge.run.ledger import LEDGER, Ledger, LedgerMismatch, LedgerReader
from evomerge.run.lock import is_locked
from evomerge.score import ItemOutcome, TaskOutcomes

ROOT = Path(__file__).parents[2]
FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where fsync costs nothing, for tests that make many ledgers."""
RECIPE = Recipe(
    "ties",
    models=(
        Source("parents/a", parameters=Parameters.constants({"weight": 0.1, "density": 0.7})),
        Source("parents/b", parameters=Parameters.constants({"weight": 1 / 3})),
    ),
    base_model="parents/base",
    dtype="bfloat16",
)

numbers = st.floats(-1e300, 1e300)
seconds = st.floats(0.0, 1e6)
words = st.text(max_size=8)
outcomes = st.one_of(
    st.builds(Failed, kind=words, message=words),
    st.builds(
        Scored,
        results=st.lists(
            st.builds(
                TaskOutcomes,
                task=words,
                outcomes=st.lists(
                    st.builds(
                        ItemOutcome,
                        item=words,
                        value=numbers,
                        weight=numbers,
                        truncated=st.booleans(),
                    ),
                    max_size=4,
                ).map(tuple),
            ),
            max_size=3,
        ).map(tuple),
        build_seconds=seconds,
        score_seconds=seconds,
        remarks=st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=2).map(tuple),
    ),
)
settings_of_recipes = st.one_of(
    numbers.map(Setting.constant),
    st.lists(numbers, min_size=2, max_size=3).map(
        lambda values: Setting((Clause(Gradient(tuple(values))),))
    ),
    st.tuples(numbers, numbers).map(
        lambda pair: Setting((Clause(pair[0], "self_attn"), Clause(pair[1])))
    ),
)
parameters = st.builds(lambda setting: Parameters.of([("weight", setting)]), settings_of_recipes)
sources = st.builds(Source, model=st.text(min_size=1, max_size=8), parameters=parameters)
recipes = st.one_of(
    st.builds(
        Recipe,
        st.just("linear"),
        models=st.lists(sources, min_size=1, max_size=3).map(tuple),
        dtype=st.sampled_from([None, "float32"]),
    ),
    st.builds(
        lambda source, low, count: Recipe(
            "passthrough", slices=(Slice((Source(source, (low, low + count)),)),)
        ),
        st.text(min_size=1, max_size=8),
        st.integers(0, 80),
        st.integers(0, 80),
    ),
)
candidates = st.builds(
    Candidate,
    id=st.integers(0, 2**40),
    generation=st.integers(0, 1000),
    origin=words,
    recipe=recipes,
    genotype=st.one_of(st.none(), st.lists(numbers, max_size=5).map(tuple)),
)


def candidate(number: int, genotype: tuple[float, ...] | None = (0.25, 0.1)) -> Candidate:
    return Candidate(number, number // 4, "cma_es", RECIPE, genotype)


def outcome_of(ledger: Ledger, key: tuple[int, str]) -> Outcome | None:
    found = ledger.counted(key)
    return None if found is None else found[1]


def scored(number: int) -> Scored:
    generator = random.Random(number)
    items = [ItemOutcome(f"item {i}", generator.random()) for i in range(40)]
    return Scored((TaskOutcomes("task", tuple(items)),), 0.5, 2.0 + number)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path) as ledger:
        yield ledger


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(candidates, outcomes), max_size=4, unique_by=lambda pair: pair[0].id))
def test_what_goes_in_comes_out(pairs: list[tuple[Candidate, Outcome]]) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        run_dir = Path(folder)
        with Ledger.open(run_dir) as ledger:
            for attempts, (one, outcome) in enumerate(pairs):
                ledger.add_candidate(one)
                assert ledger.record((one.id, "stage"), outcome, attempts=attempts, worker="w")
                assert outcome_of(ledger, (one.id, "stage")) == outcome
        with Ledger.open(run_dir) as ledger:
            for one, outcome in pairs:
                ledger.add_candidate(one)
                assert outcome_of(ledger, (one.id, "stage")) == outcome
        with LedgerReader.open(run_dir) as reader:
            assert reader.candidates() == tuple(sorted((c for c, _ in pairs), key=lambda c: c.id))
            evaluations = reader.evaluations()
        assert [(e.candidate, e.outcome) for e in evaluations] == [(c.id, o) for c, o in pairs]
        assert [e.attempts for e in evaluations] == list(range(len(pairs)))


@given(genotype=st.lists(numbers, min_size=1, max_size=60).map(tuple))
@settings(deadline=None, max_examples=30)
def test_genotypes_are_exact_to_the_sign_of_zero(genotype: tuple[float, ...]) -> None:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        with Ledger.open(Path(folder)) as ledger:
            ledger.add_candidate(candidate(1, genotype))
        with LedgerReader.open(Path(folder)) as reader:
            read = reader.candidates()[0].genotype
    assert read is not None
    assert [value.hex() for value in read] == [value.hex() for value in genotype]


def test_another_recipe_or_genotype_under_a_known_id_is_refused(ledger: Ledger) -> None:
    ledger.add_candidate(candidate(3))
    ledger.add_candidate(candidate(3))
    other = Recipe("linear", models=RECIPE.models)
    known, new = RECIPE.digest, other.digest
    with pytest.raises(LedgerMismatch, match=f"candidate 3: .* recipe {known}, got recipe {new}:"):
        ledger.add_candidate(Candidate(3, 0, "cma_es", other, (0.25, 0.1)))
    wanted = r"candidate 3: .* genotype \[0.25,0.1\], got genotype \[0.25,0.10000000000000002\]"
    with pytest.raises(LedgerMismatch, match=wanted):
        ledger.add_candidate(candidate(3, (0.25, 0.10000000000000002)))
    with pytest.raises(LedgerMismatch, match="got genotype None"):
        ledger.add_candidate(candidate(3, None))


def test_an_outcome_counts_once(ledger: Ledger, tmp_path: Path) -> None:
    ledger.add_candidate(candidate(1))
    assert ledger.counted((1, "search")) is None
    assert ledger.record((1, "search"), scored(1), attempts=2, worker="first")
    assert not ledger.record((1, "search"), Failed("late", "answer"), attempts=9, worker="zombie")
    assert ledger.record((1, "final"), Failed("out of memory", "x"), attempts=1, worker="first")
    assert outcome_of(ledger, (1, "search")) == scored(1)
    with LedgerReader.open(tmp_path) as reader:
        (search,) = reader.evaluations("search")
        assert [entry.stage for entry in reader.evaluations()] == ["search", "final"]
        assert reader.evaluations("holdout") == ()
    assert (search.attempts, search.worker, search.items, search.key) == (
        (2, "first", 40, (1, "search"))
    )


def test_an_outcome_without_its_candidate_is_a_bug(ledger: Ledger) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        ledger.record((8, "search"), scored(8), attempts=1, worker="w")


def test_numbers_that_are_not_finite_are_a_bug(ledger: Ledger) -> None:
    ledger.add_candidate(candidate(1))
    results = (TaskOutcomes("task", (ItemOutcome("item", float("nan")),)),)
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        ledger.record((1, "search"), Scored(results, 0.0, 0.0), attempts=1, worker="w")
    assert ledger.counted((1, "search")) is None


def test_a_message_with_undecodable_bytes_is_kept_readable(ledger: Ledger) -> None:
    ledger.add_candidate(candidate(1))
    ledger.record((1, "search"), Failed("error", "no file a\udcff"), attempts=1, worker="w")
    assert outcome_of(ledger, (1, "search")) == Failed("error", "no file a\\udcff")


def test_events_and_facts(ledger: Ledger, tmp_path: Path) -> None:
    ledger.log("started", {"pid": 5, "host": "ü"})
    ledger.log("generation", {"mean": 1 / 3, "told": [1, 2]})
    ledger.set_meta("seconds", 1.5)
    ledger.set_meta("seconds", 2.5)
    assert ledger.meta("seconds") == 2.5
    assert ledger.meta("winner") is None
    with LedgerReader.open(tmp_path) as reader:
        first, second = reader.events()
        assert reader.events("generation") == (second,)
        assert reader.meta("seconds") == 2.5
        assert reader.meta("winner") is None
    assert (first.kind, first.payload) == ("started", {"pid": 5, "host": "ü"})
    assert (second.kind, second.payload) == ("generation", {"mean": 1 / 3, "told": [1, 2]})
    assert first.seq < second.seq
    assert first.time <= second.time


def test_a_second_writer_is_told_who_holds_the_run(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.meta("format") == 3
    with pytest.raises(RunLocked, match=rf"drives this run \(pid {os.getpid()} on \S+ holds"):
        Ledger.open(tmp_path)
    assert is_locked(tmp_path)
    ledger.close()
    assert not is_locked(tmp_path)
    Ledger.open(tmp_path).close()


def test_a_reader_shows_one_moment_and_does_not_stop_the_writer(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.add_candidate(candidate(1))
    with LedgerReader.open(tmp_path) as early:
        ledger.add_candidate(candidate(2))
        ledger.record((2, "search"), scored(2), attempts=1, worker="w")
        assert [one.id for one in early.candidates()] == [1]
        assert early.evaluations() == ()
        with LedgerReader.open(tmp_path) as late:
            assert [one.id for one in late.candidates()] == [1, 2]
            assert late.evaluations()[0].outcome == scored(2)


def test_a_copied_directory_can_be_read_and_continued(ledger: Ledger, tmp_path: Path) -> None:
    for number in range(5):
        ledger.add_candidate(candidate(number))
        ledger.record((number, "search"), scored(number), attempts=1, worker="w")
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path, copy)
    with LedgerReader.open(copy) as reader:
        assert [entry.outcome for entry in reader.evaluations()] == [scored(n) for n in range(5)]
    with Ledger.open(copy) as continued:
        continued.add_candidate(candidate(5))
        assert outcome_of(continued, (4, "search")) == scored(4)
    with LedgerReader.open(tmp_path) as reader:
        assert len(reader.candidates()) == 5


WRITER = """
import sys
from pathlib import Path
from evomerge.run.ledger import Ledger
from tests.run.test_ledger import candidate, scored

with Ledger.open(Path(sys.argv[1])) as ledger:
    for number in range(int(sys.argv[2]), 100000):
        ledger.add_candidate(candidate(number))
        ledger.record((number, "search"), scored(number), attempts=1, worker="w")
        print(number, flush=True)
"""


def test_nothing_acknowledged_is_lost_when_the_writer_is_killed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    acknowledged = -1
    for lines in (1, 7, 3, 20, 2):
        command = [sys.executable, "-c", WRITER, str(run_dir), str(acknowledged + 1)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment
        ) as writer:
            assert writer.stdout is not None
            before = acknowledged
            for _ in range(lines):
                acknowledged = int(writer.stdout.readline())
            writer.send_signal(signal.SIGKILL)
            acknowledged = max([acknowledged, *map(int, writer.stdout.read().split())])
        assert acknowledged >= before + lines
        with LedgerReader.open(run_dir) as reader:
            stored = {entry.candidate: entry.outcome for entry in reader.evaluations()}
        assert len(stored) in (acknowledged + 1, acknowledged + 2)
        assert stored == {number: scored(number) for number in range(len(stored))}
        with Ledger.open(run_dir) as ledger:  # checks every page and every row
            assert outcome_of(ledger, (acknowledged, "search")) == scored(acknowledged)


@cache
def filled_bytes() -> bytes:
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        return filled(Path(folder)).read_bytes()


def filled(run_dir: Path) -> Path:
    with Ledger.open(run_dir) as ledger:
        for number in range(3):
            ledger.add_candidate(candidate(number))
            ledger.record((number, "search"), scored(number), attempts=1, worker="w")
        ledger.log("started", {"pid": 5})
        ledger.set_meta("winner", 2)
    return run_dir / LEDGER


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ("UPDATE evaluations SET attempts = 2 WHERE candidate = 1", r"\(candidate 1, stage 'sea"),
        ("UPDATE evaluations SET results = x'ff00' WHERE candidate = 2", r"\(candidate 2, stage"),
        ("UPDATE candidates SET genotype = '[0.25,0.3]' WHERE id = 0", "candidates row 0 is"),
        ("UPDATE candidates SET checksum = '' WHERE id = 2", "candidates row 2 is"),
        ("UPDATE events SET kind = 'stopped'", r"events row \(kind 'stopped', time \d"),
        ("UPDATE meta SET value = '1' WHERE key = 'winner'", "meta row 'winner' is"),
    ],
)
def test_a_damaged_row_is_named(change: str, row: str, tmp_path: Path) -> None:
    path = filled(tmp_path)
    with sqlite3.connect(path) as connection:
        connection.execute(change)
    connection.close()
    advice = "restore the file from a copy, or see what 'evomerge repair "
    expectation = f"{row}.* damaged: its checksum does not match; {advice}"
    with pytest.raises(InvalidInput, match=expectation):
        Ledger.open(tmp_path)
    with LedgerReader.open(tmp_path) as reader, pytest.raises(InvalidInput, match=expectation):
        (reader.candidates(), reader.evaluations(), reader.events(), reader.meta("winner"))


@settings(deadline=None, max_examples=150)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
def test_a_flipped_byte_is_found_or_harmless(place: float, bits: int) -> None:
    data = bytearray(filled_bytes())
    data[int(place * len(data))] ^= bits
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        run_dir = Path(folder)
        (run_dir / LEDGER).write_bytes(data)
        try:
            with Ledger.open(run_dir) as ledger:
                outcomes = [outcome_of(ledger, (number, "search")) for number in range(3)]
            with LedgerReader.open(run_dir) as reader:
                read = reader.candidates()
        except InvalidInput:
            return  # found
        assert outcomes == [scored(number) for number in range(3)]
        assert read == tuple(candidate(number) for number in range(3))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path)
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(InvalidInput, match="the file is damaged"):
        Ledger.open(tmp_path)


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"is not a run directory: no ledger\.sqlite in it"):
        LedgerReader.open(tmp_path)
    (tmp_path / LEDGER).write_text("not a database, but long enough to look at " * 100)
    for opener in (Ledger.open, LedgerReader.open):
        with pytest.raises(InvalidInput, match="not a ledger: restore it"):
            opener(tmp_path)
    (tmp_path / LEDGER).write_bytes(b"")
    with pytest.raises(InvalidInput, match="no evomerge ledger in this file"):
        LedgerReader.open(tmp_path)
    with Ledger.open(tmp_path) as ledger:  # what a crash during creation leaves behind
        assert ledger.meta("format") == 3
    with pytest.raises(InvalidInput, match="cannot be used as a run directory: Not a directory"):
        Ledger.open(tmp_path / LEDGER / "run")


def test_another_format_is_refused(tmp_path: Path) -> None:
    with Ledger.open(tmp_path) as ledger:
        ledger.set_meta("format", 1)
    for opener in (Ledger.open, LedgerReader.open):
        with pytest.raises(InvalidInput, match="expected ledger format 3, got 1: use the evomerge"):
            opener(tmp_path)


def test_a_full_disk_interrupts_and_loses_nothing(ledger: Ledger, tmp_path: Path) -> None:
    pages = ledger._file.connection.execute("PRAGMA page_count").fetchone()[0]
    ledger._file.connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(Interrupted, match="the disk is full: free some space and run the same"):  # noqa: PT012
        for number in range(1000):
            ledger.add_candidate(candidate(number))
            ledger.record((number, "search"), scored(number), attempts=1, worker="w")
    ledger.close()
    with Ledger.open(tmp_path) as continued:
        assert outcome_of(continued, (number - 1, "search")) == scored(number - 1)
        continued.add_candidate(candidate(number))
        assert continued.record((number, "search"), scored(number), attempts=1, worker="w")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ledger.sqlite")
    with pytest.raises(InvalidInput, match="not a ledger, and not a file"):
        Ledger.open(tmp_path)
    with pytest.raises(InvalidInput, match="not a run directory"):
        LedgerReader.open(tmp_path)
