"""Parents with different vocabularies on the command line: merge, validate, search, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.cli.conftest import Run
from tests.cli.test_bad_input import check
from tests.weights.vocabularies import model, tokens, words

Space = Callable[..., Path]


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Words in another order, some more, some fewer, and an added token."""
    path = tmp_path_factory.mktemp("other") / "other"
    return model(path, words(*range(70, 10, -1)), seed=9, layers=4, added=("<|im_end|>",))


def _space(space: Space, parents: Path, other: Path, **keys: Any) -> Path:
    models = [{"model": str(parents / "a")}, {"model": str(other)}]
    return space(space={"models": models} | keys, budget={"candidates": 17})


def test_search(evomerge: Run, space: Space, tmp_path: Path, parents: Path, other: Path) -> None:
    path = _space(space, parents, other, tokenizer_source="union", chat_template="chatml")
    assert evomerge("validate", path).code == 0
    run = tmp_path / "run"
    done = evomerge("search", "--space", path, "--out", run, "--engine", "inline")
    assert done.code == 0, done.err
    assert "scored with the vocabulary of the merge" in done.err
    best = run / "best" / "model"
    rows = 76
    assert AutoModelForCausalLM.from_pretrained(best).lm_head.weight.shape[0] == rows
    assert len(AutoTokenizer.from_pretrained(best)) == rows
    assert evomerge("export", run, "10", tmp_path / "r.yaml", "--to", "mergekit").code == 0
    assert "tokenizer_source: union" in (tmp_path / "r.yaml").read_text()
    assert evomerge("merge", tmp_path / "r.yaml", tmp_path / "m").code == 0
    assert len(tokens(tmp_path / "m")) == rows


def test_merge_with_rules(evomerge: Run, tmp_path: Path, parents: Path, other: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"""
merge_method: linear
base_model: {parents / "base"}
models: [{{model: {other}}}]
parameters: {{weight: 1.0}}
tokenizer:
  source: base
  tokens:
    <|im_end|>: {{source: {{kind: model_token, model: {other}, token: <eos>}}}}
    w1: {{source: {{kind: zero}}, force: true}}
  pad_to_multiple_of: 32
"""
    )
    assert evomerge("merge", recipe, tmp_path / "out").code == 0
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    rows = merged.get_input_embeddings().weight
    assert rows.shape[0] == merged.config.vocab_size == 96
    ids = tokens(tmp_path / "out")
    assert ids["<|im_end|>"] == 64
    assert not rows[ids["w1"]].any()
    assert rows[64].any()


def test_a_space_without_a_policy_is_refused(
    evomerge: Run, space: Space, tmp_path: Path, parents: Path, other: Path
) -> None:
    path = _space(space, parents, other)
    check(evomerge, path, tmp_path, 3, "add tokenizer_source: base or union to the recipe")


@pytest.mark.parametrize(
    ("keys", "code", "message"),
    [
        ({"tokenizer_source": "untion"}, 2, "'untion' is no model of the recipe; did you mean"),
        ({"tokenizer_source": {"choice": ["base", "union"]}}, 2, "expected a text, got {'choice'"),
        ({"chat_template": {"choice": ["chatml", "auto"]}}, 2, "chat_template: expected a text"),
        ({"chat_template": "chatmll"}, 2, "neither a built-in template nor Jinja text; did you"),
        ({"tokenizer": {"pad_to_multiple_of": 0}}, 2, "at least 1, got 0"),
        ({"tokenizer": {"tokens": {"w1": {"source": "b"}}}}, 2, "'b' is no model of the recipe"),
    ],
)
def test_what_a_space_may_not_say(
    evomerge: Run,
    space: Space,
    tmp_path: Path,
    parents: Path,
    other: Path,
    keys: dict[str, Any],
    code: int,
    message: str,
) -> None:
    check(evomerge, _space(space, parents, other, **keys), tmp_path, code, message)


def test_rows_that_a_model_lacks_are_found_before_anything_starts(
    evomerge: Run, space: Space, tmp_path: Path, parents: Path, other: Path
) -> None:
    row = {"kind": "model_token", "model": str(other), "token_id": 65}
    path = _space(space, parents, other, tokenizer={"tokens": {"int": {"source": row}}})
    message = "tokenizer.tokens.int: token_id 65 of"
    check(evomerge, path, tmp_path, 3, message)


def test_the_schema_knows_the_policy(evomerge: Run) -> None:
    schema = json.loads(evomerge("schema").out)
    definitions = schema["definitions"]
    validator = Draft7Validator(definitions["space"] | {"definitions": definitions})
    space = {"merge_method": "ties"}
    rule = {"source": {"kind": "model_token", "model": "a", "token": "b"}, "force": True}
    good = {"source": "union", "tokens": {"x": rule, "y": {"source": "a"}}, "pad_to_multiple_of": 8}
    assert validator.is_valid(space | {"tokenizer": good})
    for bad in (
        {"sorce": "base"},
        {"pad_to_multiple_of": 0},
        {"tokens": {"x": {"source": {"kind": "zeros"}}}},
    ):
        assert not validator.is_valid(space | {"tokenizer": bad})
