"""What is wrong with a recipe's tokenizer policy before any model is opened; no torch, no files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from evomerge.recipe import Recipe
from evomerge.signatures import did_you_mean
from evomerge.tokenizer_policy import BASE, UNION, ModelRow, TokenizerPolicy


def tokenizer_problems(recipe: Recipe) -> Iterator[str]:
    """One line per problem."""
    policy = recipe.tokenizer
    if policy is None:
        return
    models = recipe.referenced_models()
    if policy.model is not None and policy.model not in models:
        hint = did_you_mean(policy.model, (BASE, UNION, *models))
        yield f"tokenizer_source: '{policy.model}' is no model of the recipe; {hint}"
    multiple = policy.pad_to_multiple_of
    if multiple is not None and multiple < 1:
        yield f"tokenizer.pad_to_multiple_of: expected at least 1, got {multiple}: correct it"
    yield from _rule_problems(policy, models)


def _rule_problems(policy: TokenizerPolicy, models: tuple[str, ...]) -> Iterator[str]:
    for token, count in Counter(rule.token for rule in policy.tokens).items():
        if count > 1:
            yield f"tokenizer.tokens: '{token}' has {count} rules: keep one"
    for rule in policy.tokens:
        where, row = f"tokenizer.tokens.{rule.token}", rule.source
        if not isinstance(row, ModelRow):
            continue
        if row.model not in models:
            hint = did_you_mean(row.model, models)
            yield f"{where}: '{row.model}' is no model of the recipe; {hint}"
        if row.token is not None and row.token_id is not None:
            yield f"{where}: expected either 'token' or 'token_id', got both: remove one"
        if row.token_id is not None and row.token_id < 0:
            yield f"{where}: expected a token_id of at least 0, got {row.token_id}: correct it"
