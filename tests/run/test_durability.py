"""A driver that dies at any write, and ledgers that were damaged, end in the undisturbed run."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from evomerge.errors import InvalidInput
from evomerge.run.core import Schedule
from evomerge.run.ledger import LEDGER, Ledger, LedgerReader
from evomerge.run.ledger_count import COUNT, CountFile
from evomerge.run.ledger_file import LedgerFile
from evomerge.run.ledger_schema import unfinished_repair
from evomerge.run.plan import Batches, RunPlan
from evomerge.run.progress import Evaluated, Warned
from evomerge.run.repair import repair
from tests.run.fakes import FakeWorkers, drive, items, plan
from tests.run.test_driver import record

FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None
DIED = 9
WAL = f"{LEDGER}-wal"


def small() -> RunPlan:
    """A whole run in some 80 writes."""
    full = plan(candidates=20)
    stage = replace(
        full.stages[0], population=4, schedule=Schedule(ordered=True, ahead=2), batches=Batches(4)
    )
    return replace(
        full,
        stages=(stage,),
        search_items=items("s", 40),
        selection_items=items("v", 8),
        holdout_items=items("h", 8),
    )


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where fsync costs nothing."""
    with tempfile.TemporaryDirectory(dir=FAST) as name:
        yield Path(name)


@cache
def expected() -> list[object]:
    with tempfile.TemporaryDirectory(dir=FAST) as name:
        list(drive(Path(name), small(), FakeWorkers()))
        return record(Path(name))


def dies_at(run_dir: Path, write: int, *, after: bool) -> bool:
    """Drive the run in a process that vanishes at a write to the ledger; whether it got there."""
    child = os.fork()
    if child == 0:
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(LedgerFile, "insert", dying(write, after=after))
                list(drive(run_dir, small(), FakeWorkers()))
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DIED


def dying(write: int, *, after: bool):  # type: ignore[no-untyped-def]
    insert, count = LedgerFile.insert, 0

    def counted(self: LedgerFile, *row, **more) -> bool:  # type: ignore[no-untyped-def]
        nonlocal count
        count += 1
        if count == write and not after:
            os._exit(DIED)
        added = insert(self, *row, **more)
        if count == write:
            os._exit(DIED)
        return added

    return counted


@pytest.mark.parametrize("after", [False, True])
def test_a_death_at_any_write_changes_nothing(folder: Path, after: bool) -> None:
    write = 1 + after
    while dies_at(folder / str(write), write, after=after):
        list(drive(folder / str(write), small(), FakeWorkers()))
        assert record(folder / str(write)) == expected(), write
        shutil.rmtree(folder / str(write))
        write += 2
    assert write > 70


def test_dying_at_every_start_still_gets_there(folder: Path) -> None:
    starts = 0
    while dies_at(folder, 3, after=True):
        starts += 1
    assert starts > 20
    assert record(folder) == expected()


def half_done(run_dir: Path) -> None:
    """What kill -9 leaves in the middle of the search: everything in the write-ahead log."""
    assert dies_at(run_dir, 50, after=True)
    assert (run_dir / WAL).stat().st_size > 50_000


@cache
def half_done_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(dir=FAST) as name:
        half_done(Path(name))
        return {entry: (Path(name) / entry).read_bytes() for entry in (LEDGER, WAL, COUNT, "LOCK")}


@cache
def finished_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(dir=FAST) as name:
        list(drive(Path(name), small(), FakeWorkers()))
        return {entry: (Path(name) / entry).read_bytes() for entry in (LEDGER, COUNT, "LOCK")}


def put(run_dir: Path, files: dict[str, bytes]) -> None:
    run_dir.mkdir(exist_ok=True)
    for name, data in files.items():
        (run_dir / name).write_bytes(data)


def continued(run_dir: Path) -> list[str]:
    """Continue to the end, which is the undisturbed one; returns the warnings."""
    events = list(drive(run_dir, small(), FakeWorkers()))
    assert record(run_dir) == expected()
    return [event.text for event in events if isinstance(event, Warned)]


def ends_well(run_dir: Path) -> None:
    """The run continues to the undisturbed end, after a repair if it is refused, or not at all."""
    refusal = refused(lambda: continued(run_dir))
    if refusal is None:
        return
    assert "\n" not in refusal
    refusal = refused(lambda: repair(run_dir, dry=False, in_order=False))
    if refusal is None:
        continued(run_dir)
    else:
        assert re.search("restore it from a copy|belongs to another", refusal)


def refused(action: Callable[[], object]) -> str | None:
    """What the one line of a refusal says; None when there is none."""
    try:
        action()
    except InvalidInput as error:
        return str(error)
    return None


@settings(deadline=None, max_examples=60)
@given(name=st.sampled_from([LEDGER, WAL, COUNT]), place=st.floats(0, 1), bits=st.integers(1, 255))
def test_a_flipped_byte_never_changes_the_result(name: str, place: float, bits: int) -> None:
    files = dict(half_done_files())
    data = bytearray(files[name])
    data[min(int(place * len(data)), len(data) - 1)] ^= bits
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        put(Path(folder), files | {name: bytes(data)})
        ends_well(Path(folder))


@settings(deadline=None, max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), bits=st.integers(1, 255))
@example(place=0.0625, bits=1)  # these three leave a schema or a page that SQLite cannot read
@example(place=0.06640625, bits=128)
@example(place=0.3342313471863645, bits=1)
def test_a_flipped_byte_of_a_finished_run_never_changes_it(place: float, bits: int) -> None:
    files = dict(finished_files())
    data = bytearray(files[LEDGER])
    data[int(place * len(data))] ^= bits
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        put(Path(folder), files | {LEDGER: bytes(data)})
        ends_well(Path(folder))


@settings(deadline=None, max_examples=40)
@given(name=st.sampled_from([LEDGER, WAL, COUNT]), share=st.floats(0, 1))
def test_a_torn_file_never_changes_the_result(name: str, share: float) -> None:
    files = dict(half_done_files())
    files[name] = files[name][: int(share * len(files[name]))]
    with tempfile.TemporaryDirectory(dir=FAST) as folder:
        put(Path(folder), files)
        ends_well(Path(folder))


def test_a_torn_log_is_noticed(folder: Path) -> None:
    files = dict(half_done_files())
    put(folder, files | {WAL: files[WAL][: len(files[WAL]) // 2]})
    (text,) = continued(folder)
    assert "evaluations that were counted are not in the ledger" in text


def test_a_log_left_behind_is_noticed(folder: Path) -> None:
    files = dict(half_done_files())
    del files[WAL]
    put(folder, files)
    (text,) = continued(folder)
    assert "evaluations that were counted are not in the ledger" in text


def test_the_log_of_another_run_is_refused(folder: Path) -> None:
    half_done(folder / "other")
    log = (folder / "other" / WAL).read_bytes()
    put(folder / "unfinished", half_done_files() | {WAL: log})
    put(folder / "finished", finished_files() | {WAL: log})
    for name in ("unfinished", "finished"):
        with pytest.raises(InvalidInput, match=r"belongs to another ledger|is damaged"):
            list(drive(folder / name, small(), FakeWorkers()))
        refusal = refused(partial(repair, folder / name, dry=False, in_order=False))
        assert refusal is not None
        assert "belongs to another ledger" in refusal
    (folder / "finished" / WAL).unlink()
    assert continued(folder / "finished") == []
    (folder / "unfinished" / WAL).write_bytes(half_done_files()[WAL])
    assert continued(folder / "unfinished") == []


def test_a_repair_lists_what_it_drops_and_keeps_the_damaged_file(folder: Path) -> None:
    files = finished_files()
    damaged = files[LEDGER].replace(b'"items":["s0', b'"items":["t0', 1)
    assert damaged != files[LEDGER]
    put(folder, files | {LEDGER: damaged})
    with pytest.raises(InvalidInput, match=f"'evomerge repair {folder} --dry-run'"):
        list(drive(folder, small(), FakeWorkers()))
    told = repair(folder, dry=True, in_order=False)
    assert (folder / LEDGER).read_bytes() == damaged
    done = repair(folder, dry=False, in_order=False)
    assert done.lost == told.lost
    assert len(done.lost) == 1
    assert "the evaluations row (candidate " in done.lost[0]
    assert done.copy == folder / "damaged-1"
    with LedgerReader.open(folder) as reader:
        assert reader.meta("winner") is None, "the next start must not take it for finished"
        assert reader.meta("decision") is None
    assert (done.copy / LEDGER).read_bytes() == damaged
    events = list(drive(folder, small(), FakeWorkers()))
    assert sum(not e.replayed for e in events if isinstance(e, Evaluated)) == 1
    assert record(folder) == expected()
    with LedgerReader.open(folder) as reader:
        (event,) = reader.events("repaired")
    assert event.payload["lost"] == list(done.lost)


def test_where_order_matters_a_repair_goes_back_to_the_first_gap(folder: Path) -> None:
    files = finished_files()
    put(folder, files | {LEDGER: files[LEDGER].replace(b'"items":["s0', b'"items":["t0', 1)})
    done = repair(folder, dry=False, in_order=True)
    assert len(done.lost) == 2
    with LedgerReader.open(folder) as reader:
        assert [e.seq for e in reader.tallies()] == list(range(1, done.kept + 1))
        assert reader.meta("winner") is None
    continued(folder)


def test_what_only_the_ledger_knew_cannot_be_repaired(folder: Path) -> None:
    put(folder, finished_files())
    file = LedgerFile.writing(folder / LEDGER)
    file.set_meta("search closed at", 12, 3)
    file.connection.execute("UPDATE meta SET value = '13' WHERE key = 'search closed at'")
    file.connection.close()
    with pytest.raises(InvalidInput, match="'search closed at' is damaged, and nothing else knows"):
        repair(folder, dry=True, in_order=False)


def damage_one(folder: Path) -> None:
    files = finished_files()
    put(folder, files | {LEDGER: files[LEDGER].replace(b'"items":["s0', b'"items":["t0', 1)})


@pytest.mark.parametrize("call", ["os.replace", "pathlib.Path.unlink", "os.fsync"])
def test_a_repair_cut_off_anywhere_is_finished_by_the_next(
    folder: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, name = call.rpartition(".")
    owner = os if module == "os" else Path
    real = getattr(owner, name)
    for count in range(1, 12):
        run_dir = folder / str(count)
        run_dir.mkdir()
        damage_one(run_dir)
        left = [count]

        def dying(*given: object, left: list[int] = left, **named: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt
            return real(*given, **named)

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, dying)
            with suppress(KeyboardInterrupt):
                repair(run_dir, dry=False, in_order=False)
        if left[0] > 0:
            assert count > 1, "the call is never made"
            break
        if unfinished_repair(run_dir / LEDGER).exists():
            with pytest.raises(InvalidInput, match=r"cut off; run 'evomerge repair .*' again"):
                list(drive(run_dir, small(), FakeWorkers()))
        if refused(lambda at=run_dir: LedgerFile.verified(at / LEDGER)) is not None:
            assert len(repair(run_dir, dry=False, in_order=False).lost) == 1
        continued(run_dir)


def test_a_repair_keeps_the_numbers_of_events_and_takes_a_new_one(folder: Path) -> None:
    put(folder, finished_files())
    file = LedgerFile.writing(folder / LEDGER)
    for number in range(3):
        file.insert("events", ("warning", '{"text": "x"}', float(number)))
    last = file.connection.execute("SELECT max(seq) FROM events").fetchone()[0]
    file.connection.execute("UPDATE events SET kind = 'gone' WHERE seq IN (?, ?)", (last - 2, last))
    file.connection.close()
    done = repair(folder, dry=False, in_order=False)
    assert len(done.lost) == 2
    with LedgerReader.open(folder) as reader:
        assert [e.seq for e in reader.events()][-2:] == [last - 1, last + 1]
        assert reader.meta("winner") is not None, "no work was lost"


def test_a_death_in_a_rewind_leaves_no_count_that_is_too_high(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder, finished_files())
    with Ledger.open(folder) as ledger:
        monkeypatch.setattr(CountFile, "write", writes_once(CountFile.write))
        with pytest.raises(KeyboardInterrupt):
            ledger.rewind(5)
    monkeypatch.undo()
    with Ledger.open(folder) as ledger:
        assert ledger.missing == 0


def writes_once(real: Callable[[CountFile, int], None]) -> Callable[[CountFile, int], None]:
    written: list[int] = []

    def write(count: CountFile, counted: int) -> None:
        if written:
            raise KeyboardInterrupt
        written.append(counted)
        real(count, counted)

    return write
