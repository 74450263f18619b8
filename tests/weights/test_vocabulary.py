"""Whose row becomes which: against the rules written down token by token."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evomerge.errors import PreflightFailed
from evomerge.tokenizer_policy import ModelRow, TokenizerPolicy, TokenRule, ZeroRow
from evomerge.weights.vocabulary import Alignment, Words, align
from evomerge.weights.vocabulary_file import Vocabulary, added_token
from evomerge.weights.vocabulary_rows import aligned

WIDTH = 3


def words(*tokens: str, added: tuple[str, ...] = (), rows: int | None = None) -> Words:
    """Tokens by their ids; those in `added` follow."""
    ids = {token: index for index, token in enumerate((*tokens, *added))}
    entries = {token: added_token(token, special=True) for token in added}
    vocabulary = Vocabulary(MappingProxyType(ids), MappingProxyType(entries))
    return Words(vocabulary, len(ids) if rows is None else rows)


def matrices(models: Mapping[str, Words]) -> dict[str, torch.Tensor]:
    """For every model a matrix of different numbers."""
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(m.rows, WIDTH, generator=generator) for name, m in models.items()}


def expected_row(
    model: str,
    token: str,
    models: Mapping[str, Words],
    tensors: Mapping[str, torch.Tensor],
    policy: TokenizerPolicy,
    base: str | None,
) -> torch.Tensor:
    """The row of one token in one model's aligned matrix, straight from the rules."""
    rule = next((r for r in policy.tokens if r.token == token), TokenRule(token))
    rows = {
        name: tensors[name][entry.vocabulary.ids[token]]
        for name, entry in models.items()
        if entry.vocabulary.ids.get(token, entry.rows) < entry.rows
    }
    if model in rows and not rule.force:
        return rows[model]
    if isinstance(rule.source, ZeroRow):
        return torch.zeros(WIDTH)
    if isinstance(rule.source, ModelRow):
        number = rule.source.token_id
        if number is None:
            number = models[rule.source.model].vocabulary.ids[rule.source.token or token]
        return tensors[rule.source.model][number]
    if len(rows) == 1:
        return next(iter(rows.values()))
    if base in rows:
        return rows[base]
    return torch.stack(list(rows.values())).mean(dim=0) if rows else torch.zeros(WIDTH)


def check(
    policy: TokenizerPolicy, models: Mapping[str, Words], base: str | None = None
) -> Alignment:
    tensors = matrices(models)
    alignment = align(policy, models, base)
    real = sorted(number for number in alignment.tokens.ids.values() if number < alignment.rows)
    for model in models:
        got = aligned(model, alignment, tensors)
        assert got.shape == (alignment.rows, WIDTH)
        for token, row in alignment.tokens.ids.items():
            if row < alignment.rows and not alignment.blank[row]:
                want = expected_row(model, token, models, tensors, policy, base)
                torch.testing.assert_close(got[row], want, rtol=0, atol=1e-6)
        beyond = [r for r in range(alignment.rows) if r not in real]
        if model == alignment.tokens.model:
            kept = [r for r in beyond if r < models[model].rows]
            assert torch.equal(got[kept], tensors[model][kept])
    return alignment


A = words("a", "b", "c", "d", added=("<1>",))
B = words("c", "b", "x", "y", added=("<2>", "d"))
C = words("y", "a", "z", added=("<2>",))


@pytest.mark.parametrize("base", ["A", "B", None])
@pytest.mark.parametrize("source", ["base", "union", "A", "B", "C"])
@pytest.mark.parametrize("pad", [None, 1, 8])
def test_every_row_follows_the_rules(source: str, base: str | None, pad: int | None) -> None:
    models = {"A": A, "B": B, "C": C}
    alignment = check(TokenizerPolicy(source, pad_to_multiple_of=pad), models, base)
    assert alignment.rows % (pad or 1) == 0


def test_ids_of_a_union_are_the_first_models_then_ordinary_then_added() -> None:
    alignment = align(TokenizerPolicy("union"), {"A": A, "B": B, "C": C}, "A")
    assert list(alignment.tokens.ids) == ["a", "b", "c", "d", "<1>", "x", "y", "z", "<2>"]
    assert list(alignment.tokens.ids.values()) == list(range(9))
    assert alignment.tokens.ordinary == {"x": "B", "y": "B", "z": "C"}
    assert list(alignment.tokens.added) == ["<2>"]
    assert alignment.rows == 9
    other = align(TokenizerPolicy("union"), {"A": A, "C": C, "B": B}, "A")
    assert list(other.tokens.ids)[5:] == ["y", "z", "x", "<2>"]


def test_rules_come_before_the_general_fallback() -> None:
    rules = (
        TokenRule("a", ModelRow("B", "x")),
        TokenRule("b", ModelRow("A", token_id=0), force=True),
        TokenRule("c", ZeroRow(), force=True),
        TokenRule("d", force=True),
        TokenRule("<2>", ModelRow("C")),
        TokenRule("<new>", ModelRow("C", "z")),
        TokenRule("<zero>", ZeroRow()),
        TokenRule("<nobody's>"),
    )
    for source in ("base", "union", "B"):
        check(TokenizerPolicy(source, rules), {"A": A, "B": B, "C": C}, "A")


def test_named_tokens_that_are_absent_come_last() -> None:
    policy = TokenizerPolicy("base", (TokenRule("<2>"), TokenRule("c"), TokenRule("<new>")))
    alignment = align(policy, {"A": A, "B": B}, "A")
    assert list(alignment.tokens.ids)[5:] == ["<2>", "<new>"]
    assert alignment.tokens.added["<new>"]["special"] is False
    assert alignment.rows == 7


def test_padding_of_the_tokenizers_model_stays() -> None:
    padded = words("a", "b", "c", rows=8)
    for source in ("base", "union"):
        models = {"A": padded, "B": B}
        alignment = check(TokenizerPolicy(source), models, "A")
        assert alignment.rows == 8
        tensors = matrices(models)
        last = aligned("B", alignment, tensors)[7]
        assert torch.equal(last, tensors["A"][7])  # no task vector where nothing was learnt
    assert check(TokenizerPolicy("base", (), 6), {"A": padded, "B": B}, "A").rows == 12
    assert check(TokenizerPolicy("B"), {"A": padded, "B": B}, "A").rows == B.rows


def test_rows_beyond_are_the_mean_of_the_others() -> None:
    models = {"A": A, "B": B}
    alignment = align(TokenizerPolicy("base", (), 8), models, "A")
    tensors = matrices(models)
    assert alignment.blank.tolist() == [False] * 5 + [True] * 3
    for model in models:
        got = aligned(model, alignment, tensors)
        for row in (5, 6, 7):
            torch.testing.assert_close(got[row], got[:5].mean(dim=0))


def test_tokens_without_a_row_do_no_harm() -> None:
    short = words("a", "b", "x", "y", "z", rows=3)
    union = check(TokenizerPolicy("union"), {"A": A, "S": short}, "A")
    assert "x" in union.tokens.ids
    assert not {"y", "z"} & set(union.tokens.ids)
    base = check(TokenizerPolicy("base"), {"S": short, "B": B}, "S")
    assert base.rows == 4  # y has a row in B, z in none: it has no row, as before
    assert base.tokens.is_own
    check(TokenizerPolicy("union"), {"S": short, "A": A, "B": B}, "S")


@pytest.mark.parametrize("rows", [5, 9])
def test_equal_vocabularies_change_nothing(rows: int) -> None:
    models = {
        name: words("a", "b", "c", "d", added=("<1>",), rows=rows) for name in ("A", "B", "C")
    }
    for source in ("base", "union", "B"):
        alignment = align(TokenizerPolicy(source), models, "A")
        assert alignment.tokens.is_own
        assert all(alignment.keeps(model, rows) for model in models)


def test_only_changed_models_are_rebuilt() -> None:
    alignment = align(TokenizerPolicy("base"), {"A": A, "B": B}, "A")
    assert alignment.keeps("A", A.rows)
    assert not alignment.keeps("B", B.rows)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (ModelRow("A"), "tokenizer.tokens.y: 'A' has no row for 'y': name another source"),
        (ModelRow("A", "q"), "tokenizer.tokens.y: 'A' has no row for 'q'"),
        (ModelRow("A", token_id=5), "token_id 5 of 'A': expected at most 4, its last row"),
    ],
)
def test_rows_that_do_not_exist_are_named(source: ModelRow, message: str) -> None:
    policy = TokenizerPolicy("union", (TokenRule("y", source), TokenRule("x", ModelRow("A"))))
    with pytest.raises(PreflightFailed) as caught:
        align(policy, {"A": A, "B": B}, "A")
    assert message in caught.value.problems[0]
    assert len(caught.value.problems) == 2


letters = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=6, unique=True)


@st.composite
def some_words(draw: st.DrawFn) -> Words:
    tokens = draw(letters)
    added = tuple(t.upper() for t in draw(letters))[:2]
    size = len(tokens) + len(added)
    return words(*tokens, added=added, rows=draw(st.integers(max(1, size - 2), size + 3)))


@given(
    st.lists(some_words(), min_size=1, max_size=4),
    st.sampled_from(["base", "union", "m0"]),
    st.booleans(),
    st.sampled_from([None, 4]),
)
def test_any_vocabularies(found: list[Words], source: str, has_base: bool, pad: int | None) -> None:
    models = {f"m{index}": entry for index, entry in enumerate(found)}
    base = "m0" if has_base else None
    alignment = check(TokenizerPolicy(source, pad_to_multiple_of=pad), models, base)
    ids = list(alignment.tokens.ids.values())
    assert len(set(ids)) == len(ids)
    assert models["m0"].vocabulary.ids.items() <= alignment.tokens.ids.items()
    again = align(TokenizerPolicy(source, pad_to_multiple_of=pad), models, base)
    assert again.digest == alignment.digest


def test_means_are_rounded_once_and_biases_have_one_axis() -> None:
    models = {"A": words("a"), "B": words("b"), "C": words("b"), "D": words("b")}
    alignment = align(TokenizerPolicy("union"), models, None)
    values = (1.0, 1.0078125, 1.0, 1.015625)
    tensors = {
        name: torch.tensor([value], dtype=torch.bfloat16)
        for name, value in zip(models, values, strict=True)
    }
    got = aligned("A", alignment, tensors)
    assert got.dtype == torch.bfloat16
    exact = torch.tensor(float(np.float32(sum(values[1:]) / 3))).bfloat16()
    assert torch.equal(got, torch.stack([torch.tensor(1.0).bfloat16(), exact]))


def test_digests_tell_alignments_apart() -> None:
    models = {"A": A, "B": B, "C": C}
    policies = [
        TokenizerPolicy("union"),
        TokenizerPolicy("base"),
        TokenizerPolicy("union", (), 16),
        TokenizerPolicy("union", (TokenRule("a", force=True),)),
        TokenizerPolicy("union", (TokenRule("x", ZeroRow()),)),
        TokenizerPolicy("union", (TokenRule("x", ModelRow("B", "y")),)),
    ]
    digests = {align(policy, models, "A").digest for policy in policies}
    digests.add(align(TokenizerPolicy("union"), models, None).digest)
    assert len(digests) == len(policies) + 1
