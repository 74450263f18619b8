"""The commands with their options and help; each body imports its part only when it runs.

The imports stand inside the functions so that `--help`, `validate`, `status` and `best` start in a
fraction of a second: torch, transformers and lm-eval take many seconds.
"""

# ruff: noqa: PLC0415

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.options import (
    Budget,
    Engine,
    Json,
    Pickle,
    RemoteCode,
    Run,
    Set,
    SharedRun,
    SpaceArgument,
    Target,
    TaskCode,
    Workers,
)

if TYPE_CHECKING:
    from evomerge.cli.consenting import AllowFlags

app = typer.Typer(
    name="evomerge",
    help="Find the best way to merge language models, with evidence that it beats the parents.",
    epilog="Start with: evomerge validate SPACE, then evomerge search --space SPACE --budget 200.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.command()
def search(
    space: Annotated[Path, typer.Option("--space", help="The space file: what to search.")],
    budget: Budget = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Replaces the file's seed.")] = None,
    workers: Workers = None,
    engine: Annotated[Engine, typer.Option(help="Where candidates are evaluated.")] = Engine.auto,
    address: Annotated[
        str | None, typer.Option(help="Ray: HOST:PORT of a cluster, auto to find it, or local.")
    ] = None,
    gpus_per_worker: Annotated[
        float | None, typer.Option(help="Ray: 1 or a share such as 0.5. Default: 1 if any.")
    ] = None,
    memory_per_worker: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Most memory a worker may have, such as 8GB.")
    ] = None,
    fetch: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Run once per node for each folder it lacks: 'rsync -a head:{path}/ {path}/'.",
        ),
    ] = None,
    timeout: Annotated[
        str | None,
        typer.Option(help="Longest an evaluation may take, e.g. 30m; then its worker is replaced."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Keep a copy in PostgreSQL: postgresql://USER@HOST/DATABASE. Another machine "
            "then continues a run whose host is lost.",
        ),
    ] = None,
    settings: Set = None,
    fail_if_not_better: Annotated[
        bool, typer.Option("--fail-if-not-better", help="Exit 4 when nothing beats the baselines.")
    ] = False,
    task_code: TaskCode = None,
    remote_code: RemoteCode = None,
    pickle: Pickle = None,
    as_json: Json = False,
) -> None:
    """Search for the best merge; run the same command again to continue an interrupted search.

    Baselines are scored first: every parent, the uniform soup, common fixed recipes. Then
    generations of candidates are scored on fresh items, finalists meet on held-back items, and the
    winner is checked once on a holdout. The winner, its model and report.html are in the run
    directory.
    """
    from evomerge.cli.stopping import stopping_on_signals

    with stopping_on_signals() as stopping:  # before the imports, which take seconds
        from evomerge.cli.searching import SearchRequest, search_command

        allow = _allowed(task_code, remote_code, pickle)
        request = SearchRequest(
            space=space,
            budget=budget,
            out=out,
            seed=seed,
            workers=workers,
            engine=engine.value,
            address=address,
            gpus_per_worker=gpus_per_worker,
            memory_per_worker=memory_per_worker,
            fetch=fetch,
            timeout=timeout,
            storage=storage,
            settings=tuple(settings or ()),
            allow=allow,
        )
        search_command(request, stopping, fail_if_not_better=fail_if_not_better, as_json=as_json)


@app.command()
def validate(space: SpaceArgument, settings: Set = None, as_json: Json = False) -> None:
    """Check a space file without loading any model: keys, methods, ranges, layer groups, genes."""
    from evomerge.cli.inspecting import validate_command

    validate_command(space, tuple(settings or ()), as_json=as_json)


@app.command()
def plan(
    space: SpaceArgument,
    budget: Budget = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default runs/NAME.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Replaces the file's seed.")] = None,
    workers: Workers = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster, HOST:PORT.")] = None,
    settings: Set = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Read headers only: no times, memory estimated.")
    ] = False,
    task_code: TaskCode = None,
    remote_code: RemoteCode = None,
    pickle: Pickle = None,
    as_json: Json = False,
) -> None:
    """Show what a search will do and need: evaluations, memory, disk and, after a short test, time.

    One worker is started and measured for half a minute at most. Exit code 3 says that a search
    cannot succeed here, with every reason.
    """
    from evomerge.cli.plan import PlanRequest, plan_command

    allow = _allowed(task_code, remote_code, pickle)
    changes = tuple(settings or ())
    request = PlanRequest(space, budget, out, seed, workers, address, changes, quick, allow)
    plan_command(request, as_json=as_json)


@app.command()
def status(
    run: SharedRun,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until the run ends.")] = False,
) -> None:
    """Show how far a run is, its best candidates and failures; safe while it runs."""
    from evomerge.cli.inspecting import status_command, watch_command

    if watch:
        watch_command(run)
    else:
        status_command(run, as_json=as_json)


@app.command()
def best(
    run: SharedRun,
    top: Annotated[int, typer.Option(min=1, help="How many candidates to list.")] = 1,
    as_json: Json = False,
) -> None:
    """Print the winning recipe as mergekit YAML, or the leading candidates of a running search."""
    from evomerge.cli.inspecting import best_command

    best_command(run, top, as_json=as_json)


@app.command()
def report(
    run: SharedRun,
    out: Annotated[
        Path | None, typer.Option(help="Where to write; default RUN/report.html.")
    ] = None,
) -> None:
    """Write the report of a run: one HTML file with tables and plots, readable offline."""
    from evomerge.cli.inspecting import report_command

    report_command(run, out)


@app.command()
def repair(
    run: Run,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what is lost.")] = False,
) -> None:
    """Rebuild a run's damaged ledger from its intact rows; the damaged files are kept."""
    from evomerge.cli.repairing import repair_command

    repair_command(run, dry=dry_run)


@app.command()
def mirror(
    run: SharedRun,
    to: Annotated[
        str,
        typer.Option(
            "--to", metavar="URL", help="sqlite:///FILE, journal:FILE or postgresql://..."
        ),
    ],
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until the run ends.")] = False,
) -> None:
    """Write a run as an Optuna study, for optuna-dashboard; safe while it runs."""
    from evomerge.cli.mirroring import mirror_command

    mirror_command(run, to, watch=watch)


@app.command()
def merge(
    recipe: Annotated[Path, typer.Argument(help="An evomerge or mergekit recipe.")],
    out: Annotated[Path, typer.Argument(help="New directory for the merged model.")],
    remote_code: RemoteCode = None,
    pickle: Pickle = None,
) -> None:
    """Build the model of a recipe and save it as a Hugging Face directory."""
    from evomerge.cli.modelling import merge_command

    merge_command(recipe, out, _allowed(None, remote_code, pickle))


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A model directory or a recipe file.")],
    suite: Annotated[
        Path, typer.Option("--suite", help="A file with an `objective:` section, or a space file.")
    ],
    task_code: TaskCode = None,
    remote_code: RemoteCode = None,
    pickle: Pickle = None,
    as_json: Json = False,
) -> None:
    """Score a model on all items of a suite, with lm-eval, offline."""
    from evomerge.cli.modelling import evaluate_command

    evaluate_command(model, suite, _allowed(task_code, remote_code, pickle), as_json=as_json)


@app.command()
def export(
    run: Run,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="[ID] OUT", help="Candidate number (default: the winner), then where to write."
        ),
    ],
    to: Annotated[Target, typer.Option("--to", help="What to export.")],
    remote_code: RemoteCode = None,
    pickle: Pickle = None,
) -> None:
    """Export the winner or any candidate of a run: a file, or a new directory for a model."""
    from evomerge.cli.modelling import export_command

    export_command(run, tuple(targets), to.value, _allowed(None, remote_code, pickle))


def _allowed(
    task_code: list[str] | None, remote_code: list[str] | None, pickle: list[str] | None
) -> AllowFlags:
    from evomerge.cli.consenting import AllowFlags

    return AllowFlags(tuple(task_code or ()), tuple(remote_code or ()), tuple(pickle or ()))


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="Only this method.")] = None,
    as_json: Json = False,
) -> None:
    """List the merge methods with their parameters, ranges, defaults and papers."""
    from evomerge.cli.inspecting import methods_command

    methods_command(name, as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON Schema of space files, for completion and checks in editors."""
    from evomerge.cli.inspecting import schema_command

    schema_command()


@app.command()
def doctor(
    space: Annotated[Path | None, typer.Argument(help="A space file to check, too.")] = None,
    address: Annotated[str | None, typer.Option(help="Ray cluster to join, HOST:PORT.")] = None,
    as_json: Json = False,
) -> None:
    """Show what this machine offers: versions, GPUs, memory, folders, Ray; and what to improve.

    Exit code 3 says that a search is impossible here until what is marked PROBLEM is mended.
    """
    from evomerge.cli.doctor import DoctorRequest, doctor_command

    doctor_command(DoctorRequest(space, address), as_json=as_json)
