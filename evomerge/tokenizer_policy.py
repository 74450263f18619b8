"""What a recipe says about the merged model's tokens: whose they are, and where rows come from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

BASE = "base"
UNION = "union"


@dataclass(frozen=True)
class ModelRow:
    """A row of one model: that of `token`, or number `token_id`, or (neither) of the same token."""

    model: str
    token: str | None = None
    token_id: int | None = None


@dataclass(frozen=True)
class ZeroRow:
    """A row of zeros."""


@dataclass(frozen=True)
class TokenRule:
    """Where the row of one token comes from in models that lack it (`force`: in all models).

    `source` None is the general rule: the only model that has the token, else the base, else the
    mean of those that have it.
    """

    token: str
    source: ModelRow | ZeroRow | None = None
    force: bool = False


@dataclass(frozen=True)
class TokenizerPolicy:
    """Which tokenizer the merged model gets; rules are in the order in which new tokens get ids.

    `source` is "base", "union" or one of the recipe's models. `pad_to_multiple_of` rounds the
    number of embedding rows up.
    """

    source: str = UNION
    tokens: tuple[TokenRule, ...] = ()
    pad_to_multiple_of: int | None = None

    @property
    def model(self) -> str | None:
        """The model that `source` names; None for "base" and "union"."""
        return None if self.source in (BASE, UNION) else self.source

    def renamed(self, name: Callable[[str], str]) -> TokenizerPolicy:
        """The same policy with every model reference replaced by `name` of it."""
        source = self.source if self.model is None else name(self.model)
        rules = (
            replace(rule, source=replace(rule.source, model=name(rule.source.model)))
            if isinstance(rule.source, ModelRow)
            else rule
            for rule in self.tokens
        )
        return replace(self, source=source, tokens=tuple(rules))
