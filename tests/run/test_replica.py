from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evomerge.candidate import Candidate, Failed, Outcome
from evomerge.errors import InvalidInput, RunLocked, StorageTrouble
from evomerge.plain_text import without_secrets
from evomerge.run.directory import read_resolved
from evomerge.run.ledger import LEDGER, Ledger, LedgerMismatch, LedgerReader
from evomerge.run.ledger_file import LedgerFile
from evomerge.run.ledger_schema import COLUMNS
from evomerge.run.progress import Finished
from evomerge.run.repair import repair
from evomerge.run.replica.address import Address
from evomerge.run.replica.copier import Copier
from evomerge.run.replica.holding import Holding
from evomerge.run.replica.rows import FILE_NAMES, KEYS, Sealed, inventory, rows
from evomerge.run.replica.session import Session
from evomerge.run.replica.watching import SharedRun, shared_runs
from tests.postgres import PASSWORD, Server
from tests.run.fakes import FakeWorkers, drive, plan
from tests.run.test_driver import record
from tests.run.test_ledger import FAST, candidate, candidates, outcomes, scored, words

numbers = iter(range(10**6))


@pytest.fixture
def address(postgres: Server) -> Address:
    """A run that no other test uses."""
    return Address.parse(postgres.url).named(f"run {next(numbers)}")


def run_directory(folder: Path) -> Path:
    """A directory with the files that come before a ledger."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILE_NAMES:
        (folder / name).write_text(json.dumps({"name": name, "text": "ünï\n"}), encoding="utf-8")
    return folder


def tables(run_dir: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of a ledger with every column."""
    with closing(sqlite3.connect(run_dir / LEDGER)) as connection:
        return {
            table: sorted(connection.execute(f"SELECT * FROM {table}").fetchall())
            for table in COLUMNS
        }


def said() -> tuple[list[str], Callable[[str], None]]:
    lines: list[str] = []
    return lines, lines.append


def copied(address: Address, run_dir: Path) -> list[str]:
    """Copy all there is, as a driver does at its end; returns what was said."""
    lines, say = said()
    with Copier(address, run_dir, say) as copier:
        copier.connect(run_dir / "space.yaml")
        with copier.copying():
            pass
        assert copier.lost is None, copier.lost
    return lines


def restored(address: Address, folder: Path) -> Path:
    """The run in a new directory."""
    with Copier(address, folder, lambda _: None) as copier:
        copier.connect(folder / "space.yaml")
    return folder


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "waited for five minutes"
        time.sleep(0.02)


def cut(postgres: Server, address: Address) -> None:
    """End every session that holds the run, as a network failure or a crash would."""
    plain = Address.parse(postgres.url)
    with Session.open(plain) as session:
        session.end_holder(address.run)
        wait_for(lambda: not next(iter(session.lines(address.run))).driven)


def test_every_table_has_a_key() -> None:
    assert KEYS.keys() == COLUMNS.keys()


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.lists(st.tuples(candidates, outcomes, st.floats(), words), max_size=3),
        min_size=1,
        max_size=3,
    )
)
def test_a_restored_run_equals_the_original_row_by_row(
    postgres: Server, starts: list[list[tuple[Candidate, Outcome, float, str]]]
) -> None:
    where = Address.parse(postgres.url).named(f"run {next(numbers)}")
    with tempfile.TemporaryDirectory(dir=FAST) as name:
        run_dir = run_directory(Path(name) / "here")
        taken: set[int] = set()
        for number, start in enumerate(starts):
            with Ledger.open(run_dir) as ledger:
                ledger.log("started", {"number": number})
                for one, outcome, seconds, text in start:
                    if one.id in taken:
                        continue
                    taken.add(one.id)
                    ledger.add_candidate(one)
                    ledger.record((one.id, "stage"), outcome, attempts=1, worker=text)
                    ledger.set_meta(f"{text} {number}", repr(seconds))
                    ledger.set_meta("seconds", number)
            assert copied(where, run_dir) == []
        there = restored(where, Path(name) / "there")
        assert tables(there) == tables(run_dir)
        moved = json.loads((there / "run.json").read_text())
        assert moved.pop("space_file") == str(there / "space.yaml")
        assert moved == json.loads((run_dir / "run.json").read_text())
        for file in set(FILE_NAMES) - {"run.json"}:
            assert (there / file).read_bytes() == (run_dir / file).read_bytes()
        with Ledger.open(there) as ledger:  # checks every row
            ledger.log("started", {})


@pytest.mark.parametrize("at", [0, 1, 7, 20])
def test_copying_cut_at_any_row_leaves_the_state_before_and_goes_on(
    postgres: Server, address: Address, tmp_path: Path, at: int
) -> None:
    run_dir = run_directory(tmp_path / "run")
    with Ledger.open(run_dir) as ledger:
        ledger.log("started", {})
        ledger.add_candidate(candidate(0))
    copied(address, run_dir)
    before = tables(run_dir)
    with Ledger.open(run_dir) as ledger:
        for number in range(1, 12):
            ledger.add_candidate(candidate(number))
            ledger.record((number, "search"), scored(number), attempts=1, worker="w")
    holding = Holding(address, run_dir)
    known = holding.take()
    file = LedgerFile.reading(run_dir / LEDGER)
    news = {key: seal for key, seal in inventory(file).items() if known.get(key) != seal}

    def dying() -> Iterator[Sealed]:
        for index, row in enumerate(rows(file, news)):
            if index == at:
                cut(postgres, address)
            yield row

    with pytest.raises(StorageTrouble, match=r"terminat|closed|lost"):
        holding.push(dying(), ())
    file.connection.close()
    holding.drop()
    assert tables(restored(address, tmp_path / "cut")) == before
    copied(address, run_dir)
    assert tables(restored(address, tmp_path / "whole")) == tables(run_dir)


def test_a_search_whose_host_is_lost_goes_on_elsewhere_to_the_same_end(
    address: Address, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    *_, last = drive(whole, plan(), FakeWorkers())
    assert isinstance(last, Finished)
    lost = run_directory(tmp_path / "lost")
    progress = drive(lost, plan(), FakeWorkers())
    next(progress)
    with Copier(address, lost, lambda _: None) as copier:
        copier.connect(tmp_path / "space.yaml")
        with copier.copying():
            list(islice(progress, 40))
        list(islice(progress, 9))  # evaluated, but nobody has copied them
    shutil.rmtree(lost)
    elsewhere = tmp_path / "elsewhere"
    lines, say = said()
    with Copier(address, elsewhere, say) as copier:
        copier.connect(tmp_path / "space.yaml")
        assert lines == [f"restored {elsewhere} from {address}"]
        with LedgerReader.open(elsewhere) as reader:
            assert 30 < len(reader.evaluations()) < 45
        progress = drive(elsewhere, plan(), FakeWorkers())
        next(progress)
        with copier.copying():
            list(progress)
    progress.close()
    assert record(elsewhere) == record(whole)
    assert tables(restored(address, tmp_path / "end")) == tables(elsewhere)


def test_two_drivers_of_one_run_are_refused(
    postgres: Server, address: Address, tmp_path: Path
) -> None:
    first = Holding(address, tmp_path / "a")
    first.take()
    second = Holding(address, tmp_path / "b")
    with pytest.raises(RunLocked, match=f"drives this run \\(pid {os.getpid()} on .*, heard of 0"):
        second.take()
    other = Holding(address.named(f"{address.run} two"), tmp_path / "b")
    other.take()
    for holding in (first, other):
        holding.release()
    second.take()
    second.release()
    line = next(
        line for line in shared_runs(Address.parse(postgres.url)) if line.run == address.run
    )
    assert (line.owner, line.driven) == ("", False)


def test_a_driver_that_lost_its_session_ends_it_and_takes_the_run_again(
    postgres: Server, address: Address, tmp_path: Path
) -> None:
    holding = Holding(address, tmp_path)
    holding.take()
    unnoticed = holding._session
    holding._session = None  # as after a network failure: the server still has the old session
    with pytest.raises(StorageTrouble, match="last session; ending it"):
        holding.take()
    assert unnoticed is not None
    unnoticed.close()
    with Session.open(Address.parse(postgres.url)) as session:
        wait_for(lambda: not next(iter(session.lines(address.run))).driven)
    holding.take()
    holding.beat()
    holding.release()


def test_a_driver_whose_run_went_on_elsewhere_stops(
    postgres: Server, address: Address, tmp_path: Path
) -> None:
    here = run_directory(tmp_path / "here")
    stop = threading.Event()
    with Ledger.open(here) as ledger, Copier(address, here, lambda _: None) as copier:
        copier.connect(tmp_path / "space.yaml")
        ledger.log("started", {"host": "here"})
        with copier.copying():
            pass
    with Copier(address, here, lambda _: None) as copier:
        copier.connect(tmp_path / "space.yaml")
        cut(postgres, address)
        other = Holding(address, tmp_path / "there")
        other.restore(other.take(), tmp_path / "space.yaml")
        copier.attach(stop)
        with copier.copying():
            wait_for(stop.is_set)
        assert isinstance(copier.lost, RunLocked)
        assert copier.lost.exit_code == 6
        other.release()
        with Ledger.open(tmp_path / "there") as ledger:
            ledger.log("started", {"host": "there"})
        copied(address, tmp_path / "there")
    late = Holding(address, here)
    with pytest.raises(LedgerMismatch, match=r"continued elsewhere.*move this directory away"):
        late.take()
    assert tables(restored(address, tmp_path / "third")) == tables(tmp_path / "there")


def test_another_run_of_the_same_name_is_refused(address: Address, tmp_path: Path) -> None:
    for name in ("a", "b"):
        with Ledger.open(run_directory(tmp_path / name)) as ledger:
            ledger.log("started", {})
    copied(address, tmp_path / "a")
    with pytest.raises(LedgerMismatch, match=r"belongs to another run than .*choose another --out"):
        Holding(address, tmp_path / "b").take()


def test_a_rewind_is_copied_and_an_old_copy_of_the_directory_is_not(
    address: Address, tmp_path: Path
) -> None:
    run_dir = run_directory(tmp_path / "run")
    with Ledger.open(run_dir) as ledger:
        ledger.log("started", {})
        for number in range(4):
            ledger.add_candidate(candidate(number))
            ledger.record((number, "search"), scored(number), attempts=1, worker="w")
            ledger.set_meta("decision", number)
    old = shutil.copytree(run_dir, tmp_path / "old")
    with Ledger.open(run_dir) as ledger:
        ledger.add_candidate(candidate(9))
        ledger.record((9, "search"), scored(9), attempts=1, worker="w")
    copied(address, run_dir)
    with pytest.raises(LedgerMismatch, match="lacks evaluations that are in"):
        Holding(address, old).take()
    with Ledger.open(run_dir) as ledger:
        ledger.rewind(3)
        ledger.record((1, "final"), Failed("kind", "nul \0 and \ud800"), attempts=2, worker="w")
    copied(address, run_dir)
    assert len(tables(run_dir)["evaluations"]) == 3
    assert tables(restored(address, tmp_path / "there")) == tables(run_dir)


def test_a_repaired_run_goes_on_with_its_replica(address: Address, tmp_path: Path) -> None:
    run_dir = run_directory(tmp_path / "run")
    with Ledger.open(run_dir) as ledger:
        for number in range(3):
            ledger.log("started", {})
            ledger.add_candidate(candidate(number))
            ledger.record((number, "search"), scored(number), attempts=1, worker="w")
    copied(address, run_dir)
    old = shutil.copytree(run_dir, tmp_path / "old")
    with closing(sqlite3.connect(run_dir / LEDGER)) as connection:
        connection.execute("UPDATE evaluations SET items = 99 WHERE seq = 2")
        connection.execute("UPDATE events SET time = 1.5 WHERE seq IN (1, 3)")
        connection.commit()
    assert len(repair(run_dir, dry=False, in_order=False).lost) == 3
    copied(address, run_dir)
    assert [row[0] for row in tables(run_dir)["events"]] == [2, 4]
    assert tables(restored(address, tmp_path / "there")) == tables(run_dir)
    with pytest.raises(LedgerMismatch, match="the run was continued elsewhere"):
        Holding(address, old).take()


def test_runs_may_be_called_like_anything_of_ours(address: Address) -> None:
    with Session.open(address) as one, Session.open(address) as other:
        assert one.lock_mirror()
        assert other.lock("mirror")
        assert other.lock("own mirror")
        assert not other.lock_mirror()


def test_a_copier_that_fails_says_so(
    address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = run_directory(tmp_path / "run")
    with Ledger.open(run_dir) as ledger:
        ledger.log("started", {})

    def broken(_file: LedgerFile) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr("evomerge.run.replica.copier.inventory", broken)
    lines, say = said()
    with Copier(address, run_dir, say) as copier:
        copier.connect(run_dir / "space.yaml")
        with suppress(MemoryError), copier.copying():
            wait_for(lambda: bool(lines))
    assert lines[0].endswith("any more: MemoryError: no room")


def test_an_interrupted_join_leaves_the_session_to_the_thread(
    address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = run_directory(tmp_path / "run")
    with Ledger.open(run_dir) as ledger:
        ledger.log("started", {})

    def interrupted(_thread: threading.Thread, _timeout: float) -> None:
        raise KeyboardInterrupt

    copier = Copier(address, run_dir, lambda _: None)
    copier.connect(run_dir / "space.yaml")
    with monkeypatch.context() as patch:
        patch.setattr(Holding, "release", lambda _: pytest.fail("released under the thread"))
        patch.setattr(threading.Thread, "join", interrupted)
        with pytest.raises(KeyboardInterrupt), copier.copying():
            pass
        copier.close()
    wait_for(lambda: all(thread.name != "replica" for thread in threading.enumerate()))
    copier._holding.drop()


def test_an_outage_is_said_once_and_caught_up(
    postgres: Server, address: Address, tmp_path: Path
) -> None:
    run_dir = run_directory(tmp_path / "run")
    lines, say = said()
    with Ledger.open(run_dir) as ledger, Copier(address, run_dir, say) as copier:
        copier.connect(tmp_path / "space.yaml")
        ledger.log("started", {})
        with copier.copying():
            postgres.stop()
            try:
                for number in range(5):
                    ledger.add_candidate(candidate(number))
                    ledger.record((number, "search"), scored(number), attempts=1, worker="w")
                wait_for(lambda: len(lines) == 1)
            finally:
                postgres.start()
            wait_for(lambda: len(lines) == 2)
    assert "the search goes on" in lines[0]
    assert "is back and has everything" in lines[1]
    assert PASSWORD not in "".join(lines)
    assert tables(restored(address, tmp_path / "there")) == tables(run_dir)


def test_a_watcher_waits_for_a_database_that_comes_back(
    postgres: Server, address: Address, tmp_path: Path
) -> None:
    run_dir = run_directory(tmp_path / "run")
    with Ledger.open(run_dir) as ledger:
        ledger.log("started", {})
    copied(address, run_dir)
    with SharedRun(address) as shared:
        shared.look()
        postgres.stop()
        returning = threading.Timer(0.5, postgres.start)
        returning.start()
        assert tables(shared.look()) == tables(run_dir)
        returning.join()


def test_what_could_not_be_copied_is_said_at_the_end(
    postgres: Server, address: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.run.replica.copier._FLUSH_SECONDS", 0.0)
    run_dir = run_directory(tmp_path / "run")
    with Ledger.open(run_dir) as ledger:
        ledger.log("started", {})
    lines, say = said()
    postgres.stop()
    try:
        with pytest.raises(StorageTrouble, match="Connection refused"):
            restored(address, tmp_path / "new")
        with Copier(address, run_dir, say) as copier:
            copier.connect(tmp_path / "space.yaml")
            with copier.copying():
                pass
    finally:
        postgres.start()
    assert "the search goes on" in lines[0]
    assert "7 rows are not in" in lines[1]
    assert copied(address, run_dir) == []


def test_watchers_follow_a_run_without_its_directory(address: Address, tmp_path: Path) -> None:
    run_dir = run_directory(tmp_path / "run")
    with Ledger.open(run_dir) as ledger, Copier(address, run_dir, lambda _: None) as copier:
        copier.connect(tmp_path / "space.yaml")
        with copier.copying():
            ledger.add_candidate(candidate(0))
            wait_for(lambda: _count(address) == 1)
            with SharedRun(address) as shared:
                assert tables(shared.look())["candidates"] == tables(run_dir)["candidates"]
                assert shared.driven
                ledger.add_candidate(candidate(1))
                ledger.set_meta("winner", 1)
                wait_for(lambda: len(tables(shared.look())["candidates"]) == 2)
                assert tables(shared.look()) == tables(run_dir)
    with SharedRun(address) as shared:
        shared.look()
        assert not shared.driven
    with pytest.raises(InvalidInput, match="no run 'nothing' there; it has"):
        SharedRun(address.named("nothing"))
    with Session.open(address) as session:
        session.claim(f"{address.run} beside", "token", "")
    with pytest.raises(InvalidInput, match=r"holds several runs .*choose one: URL#NAME"):
        SharedRun(address.named(""))


def _count(address: Address) -> int:
    with Session.open(address) as session:
        return sum(part == "candidates" for part, _ in session.inventory(address.run))


def test_a_replica_of_another_format_is_refused(
    postgres: Server, address: Address, tmp_path: Path
) -> None:
    holding = Holding(address, tmp_path)
    holding.take()
    holding.release()
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("UPDATE evomerge_runs SET format = 1 WHERE run = %s", (address.run,))
    with pytest.raises(InvalidInput, match=r"expected ledger format \d, got 1: use the evomerge"):
        SharedRun(address)
    with pytest.raises(InvalidInput, match=r"expected ledger format \d, got 1: use the evomerge"):
        Holding(address, tmp_path).take()


def test_a_row_damaged_in_the_database_is_found_before_it_is_used(
    postgres: Server, address: Address, tmp_path: Path
) -> None:
    run_dir = run_directory(tmp_path / "run")
    with Ledger.open(run_dir) as ledger:
        ledger.add_candidate(candidate(0))
        ledger.record((0, "search"), scored(0), attempts=1, worker="w")
    copied(address, run_dir)
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute(
            "UPDATE evomerge_rows SET body = replace(body, 'item 7', 'item 8') "
            "WHERE run = %s AND part = 'evaluations'",
            (address.run,),
        )
    there = restored(address, tmp_path / "there")
    with pytest.raises(InvalidInput, match=r"evaluations row .* is damaged"):
        Ledger.open(there)


letters = st.text(st.characters(blacklist_characters="/%", blacklist_categories=["Cs"]), min_size=4)


@given(letters, letters)
def test_a_password_is_read_and_never_shown(user: str, password: str) -> None:
    user = user.replace(":", "").replace("@", "") or "user"
    address = Address.parse(f"postgresql://{user}:{password}@host.example:5433/base#my%20run")
    assert (address.user, address.password, address.run) == (user, password, "my run")
    assert str(address) == f"postgresql://{user}:***@host.example:5433/base#my run"
    assert address.plain == "postgresql://host.example:5433/base"
    assert address.hidden(f"x {password} y") == "x *** y" or password in "x y"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "mysql://u:secret@host/base",
            r"expected a URL such as postgresql://.*, got mysql://\*\*\*@host/base",
        ),
        ("postgresql://u:secret@host", r"\*\*\*@host: expected a database after the host"),
        ("postgresql://u:secret@host/?password=secret", "expected a database after the host"),
        ("postgresql://u:top/secret@host/base", 'expected no "@" after the first "/"'),
        ("postgresql://host/?sslpassword=secret&a=b", r"sslpassword=\*\*\*&a=b: expected a datab"),
    ],
)
def test_urls_that_are_none(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem) as error:
        Address.parse(text)
    assert "secret" not in str(error.value)


def test_options_stay_and_a_password_among_them_goes() -> None:
    address = Address.parse("postgres://host/base?sslmode=require&password=secret")
    assert (address.plain, address.password) == ("postgres://host/base?sslmode=require", "secret")
    assert "secret" not in f"{address!r} {address}"
    address = Address.parse("postgres://host/base?sslpassword=secret")
    assert address.plain.endswith("?sslpassword=secret")
    assert "secret" not in f"{address!r} {address} {address.hidden('wrong: secret')}"


def test_a_url_given_as_a_path_is_not_shown_whole(tmp_path: Path) -> None:
    path = Path("mysql://u:sec@ret/x@host/base?password=hidden")
    for action in (
        lambda: LedgerReader.open(path),
        lambda: read_resolved(path),
        lambda: repair(path, dry=True, in_order=False),
    ):
        with pytest.raises(
            InvalidInput, match=r"mysql:/\*\*\*@host/base\?password=\*\*\*"
        ) as error:
            action()
        assert not re.search("sec|ret|hidden", str(error.value).partition("base")[0])
        assert "hidden" not in str(error.value)
    place = tmp_path / "a@b" / "run?password=x"
    assert without_secrets(str(place)) == str(place)
