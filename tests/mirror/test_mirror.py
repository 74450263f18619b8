from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.trial import FrozenTrial, TrialState

from evomerge import yaml12
from evomerge.candidate import Candidate, Failed, Scored
from evomerge.cli import mirroring
from evomerge.cli.mirroring import mirror_command
from evomerge.errors import EvomergeError, InvalidInput, RunLocked, StorageTrouble
from evomerge.mergekit_yaml import dump_recipe
from evomerge.mirror.study import opened
from evomerge.mirror.trials import FITNESS, MOST_PARAMETERS, MirrorStudy, mirror_studies
from evomerge.recipe import Parameters, Recipe, Source
from evomerge.report.recorded import read_run
from evomerge.run.ledger import Ledger, LedgerReader
from evomerge.score import ItemOutcome, TaskOutcomes
from tests.postgres import PASSWORD, Server
from tests.run.fakes import GENES, FakeWorkers, drive, plan


def resolved(**changes: Any) -> dict[str, Any]:
    """What is read of the specification of the fake searches."""
    return {
        "name": "fake",
        "seed": 3,
        "space": {"merge_method": "task_arithmetic", "parameters": {"weight": GENES}},
        "parents": {"base": "1", "a": "2", "b": "3"},
        "goals": [{"task": "task", "metric": "acc,none", "weight": 1.0}],
        "objective": {"combine": "weighted_mean"},
        "constraints": [],
        "splits": {},
        "test_splits": {},
        "near_duplicates": 0,
        "budget": {"candidates": 40, "items": None, "time": None},
        "versions": {},
        "searches": [
            {
                "name": "",
                "method": "task_arithmetic",
                "algorithm": "cma_es",
                "population": 8,
                "minibatch": 40,
                "dimensions": 6,
                "baselines": [
                    {"label": b.label, "kind": b.kind} for b in plan().stages[0].baselines
                ],
            }
        ],
    } | changes


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run directory with a specification; its ledger is the test's."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "spec.resolved.yaml").write_text(yaml12.dumps(json.loads(json.dumps(resolved()))))
    place = {"space_file": str(tmp_path / "space.yaml"), "space_folder_from_run": ".."}
    (folder / "run.json").write_text(json.dumps(place))
    return folder


def studies(run: Path) -> tuple[MirrorStudy, ...]:
    with LedgerReader.open(run) as reader:
        return mirror_studies(read_run(run, driven=False), reader.evaluations("search"), "name")


def trials(target: str, study: str = "run") -> list[FrozenTrial]:
    with opened(target) as storage:
        return optuna.load_study(study_name=study, storage=storage).trials


@pytest.mark.parametrize("kind", ["sqlite:///{}/x.db", "journal:{}/x.journal", "postgresql"])
def test_a_running_search_is_followed_and_every_candidate_is_one_trial(
    run: Path, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    if kind == "postgresql":
        server: Server = request.getfixturevalue("postgres")
        target = server.url
    else:
        target = kind.format(tmp_path)
    progress = drive(run, plan(candidates=28), FakeWorkers(fail_every=7))
    list(islice(progress, 18))
    mirror_command(str(run), target, watch=False)
    early = trials(target)
    list(progress)
    for _ in range(2):
        mirror_command(str(run), target, watch=False)
    found = trials(target)
    assert 0 < len(early) < len(found)
    with LedgerReader.open(run) as reader:
        candidates = {c.id: c for c in reader.candidates()}
        expected = {
            e.candidate: e for e in reader.evaluations() if e.stage in ("baseline", "search")
        }
    assert sorted(trial.user_attrs["candidate"] for trial in found) == sorted(expected)
    for trial in found:
        number = trial.user_attrs["candidate"]
        evaluation, candidate = expected[number], candidates[number]
        assert trial.user_attrs["recipe"] == dump_recipe(candidate.recipe)
        assert trial.user_attrs["generation"] == candidate.generation
        if isinstance(evaluation.outcome, Failed):
            assert trial.state == TrialState.FAIL
            assert trial.user_attrs["failure"] == "non-finite weights: tensor 'x' has NaN"
        else:
            values = [o.value for o in evaluation.outcome.results[0].outcomes]
            assert trial.values == [sum(values) / len(values)]
        if candidate.genotype is not None:
            assert len(trial.params) == 6
            assert trial.params["weight a layers 0-1"] == pytest.approx(
                -0.3 + 1.8 * candidate.genotype[0]
            )
            assert trial.distributions["weight b layers 4-5"].to_internal_repr(1.0) == 1.0
    assert len({trial.number for trial in found}) == len(found)


def record(run: Path, outcome: Scored | Failed, recipe: Recipe) -> None:
    with Ledger.open(run) as ledger:
        ledger.set_meta("first candidate", 0)
        ledger.add_candidate(Candidate(0, 0, "cma_es", recipe, (0.5,)))
        ledger.record((0, "search"), outcome, attempts=1, worker="w")


def scored(value: float, *tasks: str) -> Scored:
    results = tuple(
        TaskOutcomes(task, (ItemOutcome("i", value / (1 + k)),)) for k, task in enumerate(tasks)
    )
    return Scored(results, 0.5, 1.5, ("batch halved",))


RECIPE = Recipe(
    "linear", models=(Source("org/a", parameters=Parameters.constants({"weight": 0.3})),)
)


def test_a_run_that_went_back_is_written_anew(run: Path, tmp_path: Path) -> None:
    target = f"sqlite:///{tmp_path / 'x.db'}"
    record(run, Failed("kind", "reason"), RECIPE)
    mirror_command(str(run), target, watch=False)
    with Ledger.open(run) as ledger:
        ledger.rewind(1)
    mirror_command(str(run), target, watch=False)
    assert trials(target) == []
    record(run, scored(1.0, "task"), RECIPE)
    mirror_command(str(run), target, watch=False)
    (trial,) = trials(target)
    assert (trial.state, trial.values) == (TrialState.COMPLETE, [1.0])
    assert trial.duration is not None
    assert trial.duration.total_seconds() == pytest.approx(2.0)
    assert trial.user_attrs["remarks"] == ["batch halved"]


def test_several_tasks_are_several_objectives(run: Path, tmp_path: Path) -> None:
    goals = [
        {"task": "t", "metric": "acc,none", "weight": 1.0},
        {"task": "u", "metric": "perplexity", "weight": 1.0, "higher_is_better": False},
    ]
    (run / "spec.resolved.yaml").write_text(
        yaml12.dumps(json.loads(json.dumps(resolved(goals=goals))))
    )
    record(run, scored(0.8, "t", "u"), RECIPE)
    (study,) = studies(run)
    assert study.metrics == (FITNESS, "t acc", "u perplexity")
    assert study.maximised == (True, True, False)
    assert study.trials[0].values == pytest.approx((0.5 * 0.8 - 0.5 * 0.4, 0.8, 0.4))
    target = f"journal:{tmp_path / 'x.journal'}"
    mirror_command(str(run), target, watch=False)
    assert trials(target)[0].values == pytest.approx([0.2, 0.8, 0.4])


def test_many_parameters_become_their_means(run: Path) -> None:
    names = [f"org{k}/m" for k in range(11)]
    many = Parameters.constants({"weight": 0.25, "density": 0.5})
    record(
        run, scored(1.0, "task"), Recipe("ties", models=tuple(Source(n, None, many) for n in names))
    )
    (study,) = studies(run)
    parameters = study.trials[0].parameters
    assert len(parameters) == MOST_PARAMETERS - 1
    assert parameters["mean weight org3/m"] == 0.25


def test_what_a_killed_writer_left_is_healed(run: Path, tmp_path: Path) -> None:
    journal = tmp_path / "x.journal"
    target = f"journal:{journal}"
    record(run, Failed("kind", "reason"), RECIPE)
    mirror_command(str(run), target, watch=False)
    with journal.open("a") as file:
        file.write('{"op_code": 4, "torn')
    (tmp_path / "x.journal.lock").symlink_to(journal)
    mirror_command(str(run), target, watch=False)
    assert len(trials(target)) == 1
    with (
        opened(target),
        pytest.raises(RunLocked, match="another evomerge mirror writes it"),
        opened(target),
    ):
        pass


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("x.db", "expected sqlite:///FILE, journal:FILE or postgresql:"),
        ("mysql://u:se/cret@h/db", r"--to mysql://\*\*\*@h/db: expected sqlite:///FILE"),
        ("sqlite:///", "expected sqlite:///FILE"),
        ("sqlite:////no/such/folder/x.db", "no folder /no/such/folder; make it first"),
    ],
)
def test_targets_that_are_none(target: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match=problem), opened(target):
        pass


def test_a_database_that_refuses_is_told_without_the_password(postgres: Server) -> None:
    wrong = postgres.url.replace("evo:", "evo:wrong-")
    with (
        pytest.raises(EvomergeError, match="password authentication failed") as error,
        opened(wrong),
    ):
        pass
    assert PASSWORD not in str(error.value)
    assert "wrong" not in str(error.value)


def test_a_watch_waits_for_a_storage_that_went_away(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"sqlite:///{tmp_path / 'x.db'}"
    monkeypatch.setattr(mirroring, "_WATCH_SECONDS", 0.0)
    driven = iter([True, True, True, False])
    monkeypatch.setattr("evomerge.cli.viewing.is_locked", lambda _: next(driven))
    record(run, scored(1.0, "task"), RECIPE)
    real, calls = optuna.create_study, [0]

    def failing(**named: Any) -> optuna.Study:
        calls[0] += 1
        if calls[0] in (2, 3):
            raise sqlalchemy.exc.OperationalError("SELECT", {}, Exception("server closed"))
        return real(**named)

    monkeypatch.setattr(optuna, "create_study", failing)
    mirror_command(str(run), target, watch=True)
    assert capsys.readouterr().err.count("server closed") == 1
    assert len(trials(target)) == 1
    calls[0] = 1
    monkeypatch.setattr("evomerge.cli.viewing.is_locked", lambda _: True)
    with pytest.raises(StorageTrouble, match=r"--to sqlite:.*server closed.*; check the URL"):
        mirror_command(str(run), target, watch=True)


def test_a_study_with_other_objectives_is_written_anew_and_a_strangers_is_refused(
    run: Path, tmp_path: Path
) -> None:
    target = f"sqlite:///{tmp_path / 'x.db'}"
    record(run, scored(1.0, "task"), RECIPE)
    with opened(target) as storage:
        optuna.create_study(study_name="run", storage=storage, directions=["minimize"] * 2)
    mirror_command(str(run), target, watch=False)
    assert len(trials(target)) == 1
    with opened(target) as storage:
        optuna.delete_study(study_name="run", storage=storage)
        optuna.create_study(study_name="run", storage=storage).add_trial(
            optuna.create_trial(value=2.0)
        )
    with pytest.raises(InvalidInput, match="'run' has trials that are not a mirror's"):
        mirror_command(str(run), target, watch=False)
    assert [trial.value for trial in trials(target)] == [2.0]
