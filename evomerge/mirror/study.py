"""Writes studies into Optuna's storages; the only door to optuna, and only ever for people.

Nothing is read back into a search, and nothing in a storage is unpickled.
"""

from __future__ import annotations

import fcntl
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from evomerge.errors import InvalidInput, PreflightFailed, RunLocked, StorageTrouble
from evomerge.mirror.trials import METHOD, MirrorStudy, MirrorTrial
from evomerge.plain_text import without_secrets
from evomerge.run.replica.address import Address, is_address

try:
    import optuna
    import sqlalchemy
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from optuna.storages import BaseStorage, JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.study import StudyDirection
    from optuna.trial import FrozenTrial, TrialState
    from optuna_dashboard import save_note
except ImportError as missing:
    raise PreflightFailed(
        "mirror: needs optuna and optuna-dashboard: pip install 'evomerge[dashboard]'"
    ) from missing

SQLITE, JOURNAL = "sqlite:///", "journal:"
_KEY = "candidate"
_MARK = "finished"
"""When the evaluation ended: another time means that the ledger was rewound since."""


@contextmanager
def opened(target: str) -> Iterator[BaseStorage]:
    """The storage at sqlite:///FILE, journal:FILE or postgresql://..., for one writer at a time.

    Raises:
        InvalidInput: no such form, or a folder that does not exist.
        StorageTrouble: the database cannot be used now; also for what is done inside.
        PreflightFailed: a package is missing.
        RunLocked: another mirror is being written there.
    """
    try:
        with _opened(target) as storage:
            yield storage
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__  # the outer ones quote whole statements
        text = (str(cause).splitlines() or [type(cause).__name__])[0]
        address = Address.parse(target) if is_address(target) else None
        raise StorageTrouble(
            f"--to {address or without_secrets(target)}: "
            f"{address.hidden(text) if address else text}; check the URL, the server and the disk"
        ) from None  # what the library says may quote the password


@contextmanager
def _opened(target: str) -> Iterator[BaseStorage]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if is_address(target):
        from evomerge.run.replica.session import Session  # noqa: PLC0415 - psycopg is optional

        address = Address.parse(target)
        with Session.open(address) as session:
            if not session.lock_mirror():
                raise RunLocked(f"{address}: another evomerge mirror writes it; wait, or stop it")
            with _ended(_postgres(address)) as storage:
                yield storage
        return
    kind = next((kind for kind in (SQLITE, JOURNAL) if target.startswith(kind)), None)
    if kind is None or len(target) == len(kind):
        raise InvalidInput(
            f"--to {without_secrets(target)}: expected sqlite:///FILE, journal:FILE or postgresql://USER@HOST/DATABASE"
        )
    path = Path(target.removeprefix(kind))
    if not path.parent.is_dir():
        raise InvalidInput(
            f"--to {without_secrets(target)}: no folder {path.parent}; make it first"
        )
    with _only_writer(path):
        if kind == JOURNAL:
            yield _journal(path)
        else:
            with _ended(_sqlite(path)) as storage:
                yield storage


def write(study: MirrorStudy, storage: BaseStorage) -> int:
    """Bring a study up to date; returns how many trials were added.

    A study that does not follow from the ledger any more, because the run was taken back or
    started again, is written anew.

    Raises:
        InvalidInput: somebody else's study has this name.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        mirrored = _study(study, storage)
        known = _known(mirrored)
        now = {trial.candidate: trial.ended for trial in study.trials}
        if any(now.get(candidate) != ended for candidate, ended in known.items()):
            optuna.delete_study(study_name=study.name, storage=storage)
            mirrored, known = _study(study, storage), {}
        news = [trial for trial in study.trials if trial.candidate not in known]
        for trial in news:
            mirrored.add_trial(_frozen(trial, study))
    return len(news)


def note(study: MirrorStudy, storage: BaseStorage, text: str) -> None:
    """Put Markdown on the note page of a study that has been written."""
    save_note(optuna.load_study(study_name=study.name, storage=storage), text)


def _study(study: MirrorStudy, storage: BaseStorage) -> optuna.Study:
    directions = [
        StudyDirection.MAXIMIZE if more else StudyDirection.MINIMIZE for more in study.maximised
    ]

    def made() -> optuna.Study:
        return optuna.create_study(
            study_name=study.name, storage=storage, directions=directions, load_if_exists=True
        )

    found = made()
    _known(found)  # before anything of it is changed
    if found.directions != directions:
        optuna.delete_study(study_name=study.name, storage=storage)
        found = made()
    if found.metric_names != list(study.metrics):
        found.set_metric_names(list(study.metrics))
    return found


def _known(study: optuna.Study) -> dict[int, float]:
    """When the trials' evaluations ended, by candidate; raises InvalidInput if it is not ours."""
    trials = study.get_trials(deepcopy=False)
    if any(not {_KEY, _MARK} <= t.user_attrs.keys() for t in trials):
        raise InvalidInput(
            f"--to: the study '{study.study_name}' has trials that are not a mirror's; choose "
            "another storage (nothing was changed)"
        )
    return {int(t.user_attrs[_KEY]): float(t.user_attrs[_MARK]) for t in trials}


def _frozen(trial: MirrorTrial, study: MirrorStudy) -> FrozenTrial:
    state = TrialState.COMPLETE
    if trial.values is None:
        state = TrialState.PRUNED if trial.rejected else TrialState.FAIL
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=state,
        value=None,
        values=trial.values,
        datetime_start=datetime.fromtimestamp(trial.began),
        datetime_complete=datetime.fromtimestamp(trial.ended),
        params=dict(trial.parameters),
        distributions={n: _distribution(n, v, study) for n, v in trial.parameters.items()},
        user_attrs={**trial.attributes, _MARK: trial.ended},
        system_attrs={},
        intermediate_values={},
    )


def _distribution(name: str, value: float | int | str, study: MirrorStudy) -> BaseDistribution:
    if name == METHOD:
        return CategoricalDistribution(study.methods)
    assert not isinstance(value, str), "only the method is a word"
    words = name.split()
    parameter = words[1] if words[0] == "mean" else words[0]
    low, high = study.ranges.get(parameter, (value, value))
    if isinstance(value, int):
        return IntDistribution(0, max(value, 1))
    return FloatDistribution(min(low, value), max(high, value))


@contextmanager
def _only_writer(path: Path) -> Iterator[None]:
    lock = path.with_name(f".{path.name}.mirror")
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunLocked(
                f"{path}: another evomerge mirror writes it; wait, or stop it"
            ) from error
        yield


@contextmanager
def _ended(storage: RDBStorage) -> Iterator[RDBStorage]:
    """Leave no connection open behind a database."""
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _sqlite(path: Path) -> RDBStorage:
    storage = RDBStorage(f"{SQLITE}{path}")
    with storage.engine.connect() as connection:
        # a dashboard that reads must not meet a writer's lock
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")
    return storage


def _journal(path: Path) -> JournalStorage:
    """The journal without what a writer that was killed has left: a torn line, a lock."""
    if path.exists():
        end = path.read_bytes().rfind(b"\n") + 1
        os.truncate(path, end)
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    return JournalStorage(JournalFileBackend(str(path)))


def _postgres(address: Address) -> RDBStorage:
    url = sqlalchemy.make_url(f"postgresql+psycopg://{address.plain.partition('://')[2]}")
    url = url.set(username=address.user, password=address.password)
    try:
        return RDBStorage(url.render_as_string(hide_password=False))
    except ImportError as error:
        text = address.hidden(str(error).splitlines()[0])
        raise PreflightFailed(f"--to {address}: {text}; install what is missing") from None
