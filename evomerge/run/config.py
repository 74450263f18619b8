"""The schema of a space file: what a person may write, and every problem in it as one line."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from evomerge import yaml12
from evomerge.errors import InvalidInput
from evomerge.signatures import did_you_mean

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)\s*([smhd])$")
Model = TypeVar("Model", bound=BaseModel)
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(value: Any) -> float:
    """Seconds from a number or a text such as "90s", "30m", "8h", "2d"."""
    match = _DURATION.match(value) if isinstance(value, str) else None
    if match:
        return float(match.group(1)) * _SECONDS[match.group(2)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    raise ValueError(f"expected a duration such as 90s, 30m or 8h, got {value!r}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class TaskConfig(_Strict):
    """One lm-eval task and the metric of it that counts."""

    task: str
    metric: str
    weight: float = Field(1.0, ge=0.0, description="share of this task in the fitness")
    limit: int | None = Field(None, gt=0, description="use at most this many items")
    learn_from: Literal["metric", "probability"] | None = Field(
        None,
        description="what the search learns from: the metric, or the probability of the right "
        "answer, which ranks candidates on half the items; default: that for multiple choice. "
        "Finals and holdout always go by the metric",
    )
    split: Literal["test", "validation", "training"] | None = Field(
        None,
        description="which of the task's splits gives the items; by default its test split if it "
        "has one, which a search may not use unless allow_test_split is true, else validation",
    )


class SplitsConfig(_Strict):
    """Shares of the items that are searched on, chosen on, and only reported on."""

    search: float = Field(0.6, gt=0.0, lt=1.0)
    selection: float = Field(0.25, gt=0.0, lt=1.0)
    holdout: float = Field(0.15, ge=0.0, lt=1.0, description="0 leaves the result unverified")


class CostConfig(_Strict):
    """What a candidate costs to run, against the model that gives its embeddings."""

    measure: Literal["layers", "parameters", "flops"]
    weight: float = Field(gt=0.0, description="weight beside those of the tasks; 1 is that model")


class ConstraintConfig(_Strict):
    """Limits that a task's metric must keep, in its own units; relative ones on the same items."""

    task: str = Field(description="one of the objective's tasks; weight 0 makes it a guard only")
    metric: str | None = Field(None, description="that of the task; for the reader")
    min: float | None = None
    max: float | None = None
    min_ratio: float | None = Field(None, gt=0.0, description="times the score of `of`")
    max_ratio: float | None = Field(None, gt=0.0, description="times the score of `of`")
    max_drop: float | None = Field(None, ge=0.0, description="how much worse than `of`, at most")
    of: str | None = Field(None, description="base or parent to compare with; default the base")


class ObjectiveConfig(_Strict):
    """What to maximise."""

    tasks: list[TaskConfig] = Field(min_length=1)
    include: list[str] = Field(
        default_factory=list, description="folders with task files, relative to this file"
    )
    allow_test_split: bool = Field(
        False, description="tune on test data; every result is stamped with it"
    )
    splits: SplitsConfig = SplitsConfig()  # type: ignore[call-arg]
    batch_size: int = Field(32, gt=0)
    num_fewshot: int | None = Field(None, ge=0)
    apply_chat_template: bool = False
    combine: Literal["weighted_mean", "pareto"] = Field(
        "weighted_mean", description="pareto: every task with weight is an objective of its own"
    )
    constraints: list[ConstraintConfig] = Field(default_factory=list)
    cost: CostConfig | None = None


class StrategyConfig(_Strict):
    """How to search."""

    algorithm: Literal["cma_es", "ga", "tpe", "gp", "nsga2", "random", "stack_ga"] | None = Field(
        None,
        description="cma_es; ga where a choice has three values or more; stack_ga for stacks",
    )
    sigma: float = Field(1.0 / 6.0, gt=0.0, le=0.5, description="first step, share of the range")
    coarse_to_fine: bool = Field(
        True, description="cma_es: first move whole parts of the depth, where there are many genes"
    )
    population: int | None = Field(None, ge=4, description="candidates per generation")
    schedule: Literal["ordered", "arrival"] | None = Field(
        None,
        description="tell results in the order asked, the same for any number of workers, or as "
        "they arrive, so that nobody waits; default: ordered while that keeps all workers busy",
    )
    ahead: int | None = Field(None, ge=0, description="candidates asked beyond those needed")
    minibatch: Annotated[int, Field(gt=0)] | Literal["all", "auto"] = Field(
        "auto",
        description="items of each task that a generation is scored on; auto: 64 where candidates "
        "are limited, 50 where time is, 20 where items are",
    )
    items: Literal["fresh", "fixed"] = Field(
        "fresh", description="others in every generation, or the same throughout"
    )
    final: Literal["paired", "best_score"] = Field(
        "paired",
        description="finalists meet on the selection items, or the best score of the search is "
        "taken at its word",
    )
    final_share: float = Field(
        0.15, gt=0.0, lt=1.0, description="of the budget that is kept for the final, at most"
    )
    margin: float = Field(
        0.5, gt=0.0, description="nats per prompt token above the donor's that reject a stack"
    )


class BudgetConfig(_Strict):
    """What the run may cost; the first limit that is reached ends the search."""

    candidates: int | None = Field(None, gt=0, description="merges built, baselines included")
    items: int | None = Field(None, gt=0, description="items scored, all but the holdout")
    time: Annotated[float, BeforeValidator(seconds), Field(gt=0)] | None = Field(
        None, description="wall time of the search, for example 8h"
    )


class StageConfig(_Strict):
    """One search of several; later ones can use what earlier ones found."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    space: dict[str, Any]
    strategy: StrategyConfig | None = None
    share: float = Field(1.0, gt=0.0, description="of the budget, against the other stages")


def _version(value: int) -> int:
    if value != 1:
        raise ValueError(f"expected 1, got {value}; this evomerge reads version 1")
    return value


class SpaceFile(_Strict):
    """A whole space file."""

    version: Annotated[int, AfterValidator(_version)]
    name: str | None = None
    space: dict[str, Any] | None = None
    stages: list[StageConfig] | None = Field(None, min_length=1)
    objective: ObjectiveConfig
    strategy: StrategyConfig = StrategyConfig()  # type: ignore[call-arg]
    budget: BudgetConfig = BudgetConfig(candidates=200)  # type: ignore[call-arg]
    seed: int = Field(0, ge=0)
    threads: int = Field(1, gt=0, description="CPU threads per worker; part of the numerics")

    @model_validator(mode="after")
    def _one_form(self) -> SpaceFile:
        if (self.space is None) == (self.stages is None):
            got = "neither" if self.space is None else "both"
            raise ValueError(f"expected one of 'space' and 'stages', got {got}")
        names = [stage.name for stage in self.stages or ()]
        if len(set(names)) < len(names):
            raise ValueError(f"expected stages with different names, got {', '.join(names)}")
        return self

    def searches(self) -> tuple[StageConfig, ...]:
        """The stages; a file with one `space` has one, without a name."""
        if self.stages is not None:
            return tuple(self.stages)
        return (StageConfig.model_construct(name="", space=self.space, strategy=None, share=1.0),)

    def strategy_of(self, stage: StageConfig) -> StrategyConfig:
        """How to search in `stage`."""
        return stage.strategy or self.strategy


def read_space_file(path: Path, overrides: Mapping[str, Any]) -> SpaceFile:
    """The space file at `path` with `overrides` ("strategy.sigma" -> value) applied.

    Raises:
        InvalidInput: every problem of the file, one line each.
    """
    return _parse(SpaceFile, _overridden(yaml12.load(path), overrides), str(path))


def read_objective(path: Path) -> ObjectiveConfig:
    """The objective of a space file or of a file that has only an `objective:` section."""
    mapping = yaml12.load(path)
    if not isinstance(mapping, Mapping) or "objective" not in mapping:
        raise InvalidInput(f"{path}: no 'objective:' section; add one, or name a space file")
    return _parse(ObjectiveConfig, mapping["objective"], f"{path}: objective")


def _overridden(mapping: Any, overrides: Mapping[str, Any]) -> Any:
    for key, value in overrides.items():
        *parents, last = key.split(".")
        target = mapping
        for name in parents:
            if not isinstance(target, dict):
                raise InvalidInput(f"--set {key}: '{name}' is not a section of the file")
            target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise InvalidInput(f"--set {key}: there is no section to set it in")
        target[last] = value
    return mapping


def _parse(model: type[Model], mapping: Any, where: str) -> Model:
    if not isinstance(mapping, Mapping):
        raise InvalidInput(f"{where}: expected a mapping, got {mapping!r}")
    try:
        return model.model_validate(mapping)
    except ValidationError as error:
        raise InvalidInput([_line(model, entry, where) for entry in error.errors()]) from None


def _line(model: type[BaseModel], entry: Any, where: str) -> str:
    location = ".".join(str(part) for part in entry["loc"])
    location = re.sub(r"\.(\d+)", r"[\1]", location)
    if entry["type"] == "extra_forbidden":
        known = _known_keys(model, entry["loc"][:-1])
        return f"{where}: {location}: unknown key; {did_you_mean(str(entry['loc'][-1]), known)}"
    if entry["type"] == "missing":
        return f"{where}: {location}: missing; add it"
    message = entry["msg"].removeprefix("Value error, ")
    got = "" if "got" in message else f", got {entry['input']!r}"
    return f"{where}: {location}: {message}{got}" if location else f"{where}: {message}"


def _known_keys(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    current: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        annotation = current.model_fields[part].annotation
        arguments = getattr(annotation, "__args__", ())
        current = arguments[0] if arguments and not isinstance(annotation, type) else annotation
        if getattr(current, "__args__", None):
            current = current.__args__[0]
    return list(current.model_fields)
