from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from evomerge.errors import InvalidInput
from evomerge.recipe import Recipe
from evomerge.tokenizer_policy import TokenizerPolicy
from evomerge.weights.chat_template import BUILT_IN, chosen_template, template_of
from evomerge.weights.resident import ResidentModel
from evomerge.weights.writer import write_model
from tests.weights.merging import materializer, source

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
]
ALPACA_OPENING = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n"
)
EXPECTED = {
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
    "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
    "<|im_start|>assistant\n",
    "llama3": "<bos><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<bos>[INST] Be brief.\n\nHi [/INST] Hello.<eos>[INST] Bye [/INST]",
    "alpaca": "<bos>Be brief.\n\n### Instruction:\nHi\n\n### Response:\nHello.<eos>\n\n"
    "### Instruction:\nBye\n\n### Response:\n",
    "exaone": "[|system|]Be brief.[|endofturn|]\n[|user|]Hi\n[|assistant|]Hello.[|endofturn|]\n"
    "[|user|]Bye\n[|assistant|]",
}
WITHOUT_SYSTEM = {
    "chatml": "<|im_start|>user\nHi<|im_end|>\n",
    "llama3": "<bos><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    "mistral": "<bos>[INST] Hi [/INST]",
    "alpaca": f"<bos>{ALPACA_OPENING}### Instruction:\nHi\n\n",
    "exaone": "[|system|][|endofturn|]\n[|user|]Hi\n",
}


def _recipe(template: str | None, *models: str) -> Recipe:
    sources = tuple(source(model, weight=1.0) for model in models or ("base", "math"))
    return Recipe("linear", sources, chat_template=template)


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_built_in_templates(llamas: Path, name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(llamas / "base")
    tokenizer.chat_template = BUILT_IN[name]
    options = {"tokenize": False}
    assert (
        tokenizer.apply_chat_template(TALK, add_generation_prompt=True, **options)
        == (EXPECTED[name])
    )
    assert tokenizer.apply_chat_template(TALK[1:2], **options) == WITHOUT_SYSTEM[name]


def _model(path: Path, template: str | list[dict[str, str]] | None, *, file: bool = False) -> Path:
    path.mkdir(parents=True)
    if file and isinstance(template, str):
        (path / "chat_template.jinja").write_text(template)
    settings = {} if template is None or file else {"chat_template": template}
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    return path


def test_auto_takes_the_most_frequent_then_the_first(tmp_path: Path) -> None:
    models = [
        _model(tmp_path / "none", None),
        _model(tmp_path / "a", "{{ a }}"),
        _model(tmp_path / "b", "{{ b }}", file=True),
        _model(tmp_path / "b2", [{"name": "tools", "template": "{{ a }}"}]),
    ]
    assert chosen_template(_recipe("auto"), models) == "{{ a }}"
    models.append(_model(tmp_path / "b3", [{"name": "default", "template": "{{ b }}"}]))
    assert chosen_template(_recipe("auto"), models) == "{{ b }}"
    assert chosen_template(_recipe("auto"), reversed(models[1:3])) == "{{ b }}"
    assert chosen_template(_recipe("auto"), models[:1]) is None
    assert chosen_template(_recipe(None), models) is None
    assert template_of(models[2]) == "{{ b }}"


@pytest.fixture
def parents(llamas: Path, tmp_path: Path) -> Path:
    """base with its template in tokenizer_config.json and more beside it, math in a file."""
    for name in ("base", "math", "code"):
        shutil.copytree(llamas / name, tmp_path / name)
    (tmp_path / "base" / "chat_template.jinja").unlink()
    settings = tmp_path / "base" / "tokenizer_config.json"
    content = json.loads(settings.read_text()) | {"chat_template": "old {{ messages }}"}
    settings.write_text(json.dumps(content))
    (tmp_path / "base" / "chat_template.json").write_text("{}")
    (tmp_path / "base" / "additional_chat_templates").mkdir()
    (tmp_path / "base" / "additional_chat_templates" / "tools.jinja").write_text("{{ tools }}")
    return tmp_path


@pytest.mark.parametrize(
    ("template", "tokenizer", "expected"),
    [
        ("chatml", None, BUILT_IN["chatml"]),
        ("{{ messages[0].content }}", None, "{{ messages[0].content }}"),
        ("{{ messages[0].content }}", TokenizerPolicy("base"), "{{ messages[0].content }}"),
        ("auto", TokenizerPolicy("union"), "{% for message in messages %}{{ message"),
    ],
)
def test_the_template_has_one_place(
    parents: Path, template: str, tokenizer: TokenizerPolicy | None, expected: str
) -> None:
    engine = materializer(parents, "base", "math", "code")
    sources = _recipe(None, "base", "math", "code").models
    recipe = Recipe("linear", sources, tokenizer=tokenizer, chat_template=template)
    out = parents / "out"
    write_model(recipe, engine, out)
    assert (out / "chat_template.jinja").read_text().startswith(expected)
    assert "chat_template" not in json.loads((out / "tokenizer_config.json").read_text())
    assert not (out / "chat_template.json").exists()
    assert not (out / "additional_chat_templates").exists()
    assert (out / "generation_config.json").exists()
    saved = AutoTokenizer.from_pretrained(out)
    assert saved.chat_template == (out / "chat_template.jinja").read_text()
    assert ResidentModel(engine, recipe).tokenizer.chat_template == saved.chat_template
    assert "chat_template" in json.loads((parents / "base" / "tokenizer_config.json").read_text())


def test_without_the_key_everything_stays(parents: Path) -> None:
    engine = materializer(parents, "base", "math")
    write_model(_recipe(None), engine, parents / "out")
    for name in ("tokenizer_config.json", "chat_template.json", "tokenizer.json"):
        assert (parents / "out" / name).read_bytes() == (parents / "base" / name).read_bytes()
    assert (parents / "out" / "additional_chat_templates" / "tools.jinja").exists()


def test_a_broken_template_writes_nothing(parents: Path) -> None:
    engine = materializer(parents, "base", "math")
    broken = "{% for m in messages %}\n{{ m }}\n{% endif %}"
    with pytest.raises(InvalidInput, match=r"chat_template: line 3 is not valid Jinja .*endif"):
        write_model(_recipe(broken), engine, parents / "out")
    assert not (parents / "out").exists()
