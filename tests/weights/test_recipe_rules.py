from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.recipe import Clause, Gradient, Parameters, Recipe, Setting, Slice, Source
from evomerge.tokenizer_policy import ModelRow, TokenizerPolicy, TokenRule
from evomerge.weights.recipe_rules import validate_recipe
from tests.weights.merging import source


def _ties(**changes: object) -> Recipe:
    sources = (source("a", weight=0.5), source("b", weight=0.5, density=0.3))
    recipe = Recipe("ties", sources, base_model="base")
    return replace(recipe, **changes)  # type: ignore[arg-type]


def _sliced(*slices: Slice, method: str = "passthrough", base: str | None = None) -> Recipe:
    return Recipe(method, slices=slices, base_model=base)


def _slice(*sources: Source, base: str | None = None) -> Slice:
    return Slice(sources, base_model=base)


def _rules(*rules: TokenRule) -> TokenizerPolicy:
    return TokenizerPolicy("base", rules)


GOOD = [
    _ties(),
    _ties(chat_template="chatml"),
    _ties(
        chat_template="{% for m in messages %}{% generation %}{{ m }}{% endgeneration %}{%endfor%}"
    ),
    _ties(tokenizer=_rules(TokenRule("<x>", ModelRow("b", token_id=0)), TokenRule("<y>"))),
    _ties(models=(source("base"), source("a", weight=1.0))),
    _ties(models=(source("base"),)),
    _ties(dtype="float32", out_dtype="bfloat16", tokenizer=TokenizerPolicy("base")),
    Recipe("linear", (source("a", weight=1),)),
    Recipe(
        "slerp",
        (source("a"), source("b")),
        base_model="b",
        parameters=Parameters.constants({"t": 1.5}),
    ),
    _sliced(_slice(source("a", (0, 4))), _slice(source("a", (2, 6)))),
    _sliced(_slice(source("a", (0, 0))), _slice(source("a", (2, 6)))),
    _sliced(
        _slice(source("a", (0, 2)), source("b", (1, 3), weight=1), base="a"),
        method="ties",
        base="b",
    ),
]


@pytest.mark.parametrize("recipe", GOOD)
def test_sound_recipes_have_no_problems(recipe: Recipe) -> None:
    assert validate_recipe(recipe) == []


def _only(recipe: Recipe) -> str:
    (line,) = validate_recipe(recipe)
    return line


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        (_ties(merge_method="tise"), "unknown method 'tise'; did you mean 'ties'?"),
        (_ties(dtype="fp16"), "dtype: unknown type 'fp16'"),
        (_ties(out_dtype="float3"), "out_dtype: unknown type 'float3'; did you mean 'float32'?"),
        (_ties(base_model=None), "models: ties needs a base_model, got none: add base_model"),
        (
            _ties(chat_template="chatm"),
            "'chatm' is neither a built-in template nor Jinja text; did",
        ),
        (_ties(chat_template="a\n{{ b }"), "chat_template: line 2 is not valid Jinja (unexpected"),
        (
            _ties(tokenizer=TokenizerPolicy("bas")),
            "tokenizer_source: 'bas' is no model of the recipe; did you mean 'base'?",
        ),
        (
            _ties(tokenizer=TokenizerPolicy("union", pad_to_multiple_of=0)),
            "tokenizer.pad_to_multiple_of: expected at least 1, got 0",
        ),
        (
            _ties(tokenizer=_rules(TokenRule("<x>", ModelRow("bb")))),
            "tokenizer.tokens.<x>: 'bb' is no model of the recipe; did you mean 'b'?",
        ),
        (
            _ties(tokenizer=_rules(TokenRule("<x>", ModelRow("b", "y", 3)))),
            "tokenizer.tokens.<x>: expected either 'token' or 'token_id', got both",
        ),
        (
            _ties(tokenizer=_rules(TokenRule("<x>", ModelRow("b", token_id=-1)))),
            "tokenizer.tokens.<x>: expected a token_id of at least 0, got -1",
        ),
        (
            _ties(tokenizer=_rules(TokenRule("<x>"), TokenRule("<x>", force=True))),
            "tokenizer.tokens: '<x>' has 2 rules: keep one",
        ),
        (_ties(models=(source("a", weight=1), source("a", weight=2))), "'a' occurs 2 times"),
        (_ties(models=(Source("a"),)), "ties needs a value of 'weight'"),
        (
            _ties(models=(source("a", weight=1), Source("b"))),
            "(how much of the model to add) for 'b': add it",
        ),
        (
            _ties(models=(source("a", (0, 2), weight=1),)),
            "models[0]: layer_range belongs to slices",
        ),
        (
            Recipe("slerp", (source("a"), source("b")), base_model="b"),
            "parameters: slerp needs a value of 't' (0 is the base, 1 the other model): add it",
        ),
        (
            Recipe("linear", (source("a", weight=1),), base_model="base"),
            "models: linear needs a value of 'weight' (how much of the model to add) for 'base'",
        ),
        (
            Recipe("passthrough", (source("a"), source("b"))),
            "models: passthrough takes exactly 1 model(s), got 2: add or remove models",
        ),
        (
            Recipe("passthrough", (source("a"),), base_model="b"),
            "passthrough takes exactly 1 model(s), got 2",
        ),
        (
            Recipe(
                "slerp",
                (source("a"), source("b"), source("c")),
                base_model="c",
                parameters=Parameters.constants({"t": 0.5}),
            ),
            "slerp takes exactly 1 model(s) besides the base, got 2",
        ),
        (
            _sliced(_slice(source("a", (0, 2), weight=1)), method="ties", base="b"),
            "slices[0]: ties needs the base 'b' among the sources of every slice",
        ),
        (_sliced(_slice(source("a", (0, 2))), _slice(source("a"))), "slices[1]: every source"),
        (_sliced(_slice(source("a", (3, 2)))), "expected layer_range [start, end] with 0 <="),
        (_sliced(_slice(source("a", (-1, 2)))), "expected layer_range [start, end] with 0 <="),
        (_sliced(_slice(source("a", (2, 2)))), "expected at least one layer in total, got 0"),
        (
            Recipe(
                "linear",
                slices=(_slice(source("a", (0, 2), weight=1), source("b", (0, 3), weight=1)),),
            ),
            "slices[0]: expected layer ranges of one length, got [2, 3]: make them equally long",
        ),
    ],
)
def test_each_fault_is_one_line(recipe: Recipe, line: str) -> None:
    assert line in _only(recipe)


def _with(name: str, *clauses: Clause) -> Parameters:
    return Parameters.of([(name, Setting(clauses))])


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        (_with("densty", Clause(0.5)), "ties has no parameter 'densty'; did you mean 'density'?"),
        (_with("t", Clause(0.5)), "ties has no parameter 't'; known: density, int8_mask"),
        (_with("density", Clause(1.5)), "density: expected a number in [0, 1], got 1.5: correct"),
        (_with("density", Clause(float("nan"))), "density: expected a number in [0, 1], got nan"),
        (_with("density", Clause(Gradient((0.1, -0.1)))), "expected a number in [0, 1], got -0.1"),
        (
            _with("density", Clause(0.5, "mlp"), Clause(2, None)),
            "expected a number in [0, 1], got 2",
        ),
        (_with("density", Clause(Gradient(()))), "expected at least one value in the gradient"),
        (_with("density", Clause("x")), "expected a number, got 'x'"),
        (_with("normalize", Clause(0.5)), "normalize: expected true or false, got 0.5"),
    ],
)
def test_parameter_faults_name_their_place(parameters: Parameters, line: str) -> None:
    found = _only(_ties(parameters=parameters))
    assert found.startswith("parameters: ")
    assert line in found


def test_a_shared_parameter_cannot_be_given_per_model() -> None:
    recipe = _ties(models=(source("a", weight=1, normalize=True),))
    assert _only(recipe) == (
        "models[0] ('a'): 'normalize' has one value for the whole merge, not one per model: "
        "move it to the top-level parameters"
    )


def test_whole_numbers_are_checked() -> None:
    recipe = replace(_ties(), merge_method="dare_ties", parameters=_with("seed", Clause(1.5)))
    assert "seed: expected a whole number, got 1.5" in _only(recipe)


def test_all_faults_come_at_once() -> None:
    recipe = Recipe(
        "ties",
        slices=(
            _slice(source("a", (0, 2), weigth=1), source("base", (0, 3)), base="base"),
            _slice(source("a", (0, 2), density=7.0)),
        ),
        dtype="half",
        parameters=_with("lamda", Clause(1)),
    )
    text = "\n".join(validate_recipe(recipe))
    for expected in (
        "dtype: unknown type 'half'",
        "slices[0]: expected layer ranges of one length",
        "slices[0].sources[0] ('a'): ties has no parameter 'weigth'; did you mean 'weight'?",
        "slices[1]: ties needs a base_model",
        "slices[1].sources[0] ('a'): density: expected a number in [0, 1], got 7",
        "parameters: ties has no parameter 'lamda'; did you mean 'lambda'?",
    ):
        assert expected in text
