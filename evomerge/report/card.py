"""The model card of a winner: README.md with Hugging Face front matter and the evidence."""

from __future__ import annotations

import re
from collections.abc import Callable

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evomerge import yaml12
from evomerge.errors import InvalidInput
from evomerge.report.evidence import result_rows, results, standing
from evomerge.report.formats import scale_of
from evomerge.report.front_text import (
    constraint_sentences,
    front_heads,
    front_lines,
    front_sentences,
)
from evomerge.report.page import protocol, task_table
from evomerge.report.sentences import STAMPS, cautions, evidence_sentences, headline, stamps
from evomerge.report.summary import RunSummary

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9][\w.-]*)?")
_MARKDOWN = re.compile(r"([\\`*{}\[\]#|~$]|(?<!\w)_|_(?!\w))")
_HTML = (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"))


def render_card(summary: RunSummary) -> str:
    """The card as Markdown; the same summary always gives the same text.

    Raises:
        InvalidInput: the run has no winner yet, so there is no model to describe.
    """
    if summary.winner is None:
        raise InvalidInput(
            f"{summary.name}: no model card without a winner (the run is {summary.state}); "
            "let the search finish first"
        )
    scale = scale_of(summary)
    return _environment().get_template("card.md.j2").render(
        summary=summary,
        # The dumper quotes what needs quoting.
        front_matter=Markup(_front_matter(summary)),
        stamp=STAMPS[standing(summary)],
        stamps=stamps(summary),
        headline=headline(summary),
        sentences=evidence_sentences(summary, scale),
        cautions=cautions(summary, scale),
        unit=scale.unit,
        lead_unit=scale.lead_unit,
        results=results(summary),
        rows=result_rows(summary, scale),
        tasks=task_table(summary),
        front_lines=front_lines(summary),
        front_heads=front_heads(summary),
        front_sentences=front_sentences(summary),
        constraints=constraint_sentences(summary),
        protocol=protocol(summary, scale),
        recipe=_fenced(summary.winner_recipe, "yaml"),
    )  # fmt: skip


def _front_matter(summary: RunSummary) -> str:
    """Only names that can be hub repositories are given as base models: the hub refuses others."""
    models = [name for name in (summary.base, *summary.parents) if name is not None]
    hub = [
        name for name in dict.fromkeys(_without_adapter(m) for m in models) if _is_hub_name(name)
    ]
    matter: dict[str, object] = {"library_name": "transformers", "tags": ["merge", "evomerge"]}
    if hub:
        matter = {"base_model": hub, "base_model_relation": "merge", **matter}
    return yaml12.dumps(matter)


def _without_adapter(model: str) -> str:
    """The model part of a "base+adapter" reference."""
    return model.partition("+")[0]


def _is_hub_name(name: str) -> bool:
    return _HUB_NAME.fullmatch(name) is not None and ".." not in name and "--" not in name


def _fenced(text: str, language: str) -> Markup:
    """A code block whose fence is longer than any run of backticks inside."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return Markup(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def _literal(value: object) -> object:
    """Text as Markdown shows it literally, on one line; what is already Markdown stays."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    text = " ".join(value.split()) if value.strip() else value
    for symbol, entity in _HTML:
        text = text.replace(symbol, entity)
    return _MARKDOWN.sub(r"\\\1", text)


def _environment() -> Environment:
    literal: Callable[[object], object] = _literal
    return Environment(
        loader=PackageLoader("evomerge.report", "templates"),
        # Markdown has its own special characters: every value passes through `_literal`.
        autoescape=False,
        finalize=literal,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
