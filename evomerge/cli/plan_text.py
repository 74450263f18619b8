"""How a plan reads."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.cli.outlook import Outlook
from evomerge.run.forecast import search_method
from evomerge.run.plan import Batches, StagePlan
from evomerge.space import SearchSpace
from evomerge.stack_space import StackSpace

_UNITS = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))


def size(count: float) -> str:
    """Bytes with three digits or so."""
    for unit, factor in _UNITS:
        if count >= factor:
            value = count / factor
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"
    return f"{count:.0f} bytes"


def duration(seconds: float | None) -> str:
    """Seconds as a person would say them."""
    if seconds is None:
        return "?"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def lines(outlook: Outlook) -> Iterator[str]:
    """The plan as text."""
    where = "on this machine" if outlook.place.cluster is None else "on the cluster"
    yield f"{outlook.space}: {_many(outlook.expected.workers, 'worker')} {where}"
    yield ""
    yield from _searches(outlook)
    yield from _parents(outlook)
    yield ""
    yield from _phases(outlook)
    yield ""
    yield from _memory(outlook)
    yield from _disk(outlook)
    for notice in outlook.notices:
        yield f"notice    {notice}"
    for warning in outlook.warnings:
        yield f"warning   {warning}"


def _searches(outlook: Outlook) -> Iterator[str]:
    for stage in outlook.built.plan.stages:
        name = f"{stage.name}: " if stage.name else ""
        yield (
            f"search    {name}{method_name(stage)}, {_dimension(stage)}; {stage.algorithm}, "
            f"{stage.population} per generation, {_batches(stage.batches)}"
        )


def _batches(batches: Batches) -> str:
    if batches.items is None:
        return "all items"
    kind = "fresh" if batches.fresh else "fixed"
    return f"{batches.items} {kind} items of each task"


def method_name(stage: StagePlan) -> str:
    """What the stage searches."""
    space = stage.space
    if isinstance(space, SearchSpace):
        return f"{space.method}{' and others' if space.methods_vary else ''}"
    return "stack"


def _dimension(stage: StagePlan) -> str:
    space = stage.space
    assert isinstance(space, SearchSpace | StackSpace), "there are no other spaces"
    return _many(space.dimension, "gene" if isinstance(space, SearchSpace) else "number")


def _parents(outlook: Outlook) -> Iterator[str]:
    parents = outlook.built.needs.parents
    wide = max(len(parent.model) for parent in parents)
    for number, parent in enumerate(parents):
        types = ", ".join(parent.dtypes)
        yield (
            f"{'parents' if not number else '':<8}  {parent.model:<{wide}}  {size(parent.nbytes)} "
            f"{types}, fingerprint {parent.fingerprint}"
        )


def _phases(outlook: Outlook) -> Iterator[str]:
    expected = outlook.expected
    rows = [("phase", "evaluations", "items", "time")]
    rows += [("starting", "", "", duration(expected.starting))]
    rows += [
        (p.name, _count(p.evaluations), _count(p.items), duration(p.seconds))
        for p in expected.phases
    ]
    rows += [("saving, report", "", "", duration(expected.handing_over))]
    rows += [
        ("in all", _count(expected.evaluations), _count(expected.items), duration(expected.seconds))
    ]
    wide = max(len(row[0]) for row in rows)
    for name, evaluations, items, seconds in rows:
        yield f"{name:<{wide}}  {evaluations:>11}  {items:>9}  {seconds:>8}"
    if expected.utilization is not None:
        yield f"workers evaluate {100 * expected.utilization:.0f} % of that time"
    found = outlook.calibration
    if found is None:
        yield "times were not measured"
        return
    costs, method = found.costs, search_method(outlook.built.plan.stages[0])
    yield (
        f"measured  worker ready after {duration(found.start)}; a merge built in "
        f"{1000 * costs.next_build(method):.0f} ms (the first in "
        f"{1000 * costs.first_build(method):.0f} ms); {1000 * costs.call:.0f} ms and "
        f"{1000 * costs.item:.1f} ms per item to score it"
    )


def _memory(outlook: Outlook) -> Iterator[str]:
    needs, place, workers = outlook.memory, outlook.place, outlook.expected.workers
    origin = "measured" if needs.measured else "estimated, without prompts and answers"
    model = size(outlook.built.needs.resident)
    yield (
        f"memory    {size(needs.worker)} per worker ({model} of it the model; {origin}), "
        f"{size(needs.driver)} driver, {size(needs.shared)} shared"
    )
    if place.cluster is not None:
        for node in place.cluster:
            offer = f"{node.cpus} CPUs, {node.gpus} GPUs, {size(node.memory)}"
            yield f"          node {node.name}: {offer}"
        yield f"          room for {_many(outlook.fitting, 'worker')}"
        return
    yield (
        f"          {size(needs.total(workers))} for {_many(workers, 'worker')}; "
        f"{size(place.memory.free)} free: room for {outlook.fitting}"
    )
    if place.gpus:
        held = outlook.calibration.device if outlook.calibration else outlook.built.needs.resident
        free = ", ".join(size(gpu) for gpu in place.gpus)
        yield f"GPU       {size(held)} per worker; free: {free}"


def _disk(outlook: Outlook) -> Iterator[str]:
    needs, place = outlook.built.needs, outlook.place
    yield (
        f"disk      {place.run_dir}: {size(needs.saved)} model, {size(outlook.ledger)} ledger; "
        f"{size(place.run_free)} free"
    )
    if needs.cache or needs.nested:
        nested = f", {size(needs.nested)} merged models" if needs.nested else ""
        free = "?" if place.cache_free is None else size(place.cache_free)
        yield f"          {place.cache}: at most {size(needs.cache)} computed{nested}; {free} free"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"
