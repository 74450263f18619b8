"""Tokenizers with other models' tokens built in: ids, reachability, and what must not change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from evomerge.tokenizer_policy import TokenizerPolicy, TokenRule
from evomerge.weights.vocabulary import OutputTokens, Words, align
from evomerge.weights.vocabulary_file import TOKENIZER_FILE, read_document, read_vocabulary
from evomerge.weights.vocabulary_union import union_document
from tests.weights import vocabularies
from tests.weights.vocabularies import SPECIAL, byte_bpe, save_tokenizer, unigram, wordpiece

CODE = ["def merged(recipe): return recipe.tensors", "for tensor in tensors: print(tensor)"] * 3
PROSE = ["the best recipe merges the better of the two models", "two specialists are merged"] * 3

Built = tuple[Tokenizer, Tokenizer, OutputTokens]


def build(
    path: Path, first: Any, second: Any, *rules: str, added: tuple[str, ...] = ("<|b|>",)
) -> Built:
    """The first tokenizer, the union of both, and the union's tokens."""
    folders = {name: path / name for name in ("a", "b")}
    save_tokenizer(folders["a"], first, ("<|a|>",))
    save_tokenizer(folders["b"], second, added)
    vocabularies = {name: read_vocabulary(name, folder) for name, folder in folders.items()}
    words = {name: Words(found, len(found.ids)) for name, found in vocabularies.items()}
    policy = TokenizerPolicy("union", tuple(TokenRule(token) for token in rules))
    tokens = align(policy, words, "a").tokens
    documents = {name: read_document(name, folder) for name, folder in folders.items()}
    document = union_document(tokens, documents)
    assert document == union_document(tokens, documents)
    union = Tokenizer.from_str(json.dumps(document))
    assert union.get_vocab() == dict(tokens.ids)  # the ids that we promise are those on loading
    return Tokenizer.from_file(str(folders["a"] / TOKENIZER_FILE)), union, tokens


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> Built:
    path = tmp_path_factory.mktemp("bpe")
    return build(path, byte_bpe(CODE, 320), byte_bpe(PROSE, 340), "<new>")


def test_new_bpe_tokens_are_found_in_text(bpe: Built) -> None:
    before, after, tokens = bpe
    assert len(tokens.ordinary) > 20
    found = [token for token in tokens.ordinary if after.encode(_text(token)).tokens == [token]]
    assert len(found) > 0.9 * len(tokens.ordinary)
    assert len(after.encode(PROSE[0]).ids) < 0.7 * len(before.encode(PROSE[0]).ids)
    assert after.encode("a<|b|>b<|a|>c<new>").tokens == ["a", "<|b|>", "b", "<|a|>", "c", "<new>"]


def _text(token: str) -> str:
    return token.replace("Ġ", " ")


def _joins_runs(before: list[str], after: list[str], new: set[str]) -> bool:
    """Whether `after` is `before` with some runs of neighbours joined into new tokens."""
    rest = iter(before)
    for token in after:
        piece = next(rest)
        while piece != token and token in new and token.startswith(piece):
            piece += next(rest)
        if piece != token:
            return False
    return next(rest, None) is None


alphabet = st.sampled_from([*"adefimnoprst", " ", "the", " recipe", " merge", "tensor", "é", "\n"])


@given(st.lists(alphabet, max_size=12).map("".join))
@settings(max_examples=200)
def test_bpe_text_changes_only_where_neighbours_spell_a_new_token(bpe: Built, text: str) -> None:
    before, after, tokens = bpe
    old, new = before.encode(text).tokens, after.encode(text).tokens
    assert after.decode(after.encode(text).ids) == text
    assert _joins_runs(old, new, set(tokens.ordinary))
    if not any(_text(token) in text for token in tokens.ordinary):
        assert new == old


def test_merges_of_old_files_and_missing_parts(tmp_path: Path) -> None:
    merges = [("t", "h"), ("th", "e"), ("x", "y"), ("xy", "z")]
    document = _bpe_document("thexyzTHEQ", merges, ("the",))
    document["model"]["merges"] = [" ".join(pair) for pair in merges]
    other = _bpe_document("thexyzq", [("h", "e"), ("t", "he"), ("q", "q"), ("the", "q")], ())
    for name, content in (("a", document), ("b", other)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / TOKENIZER_FILE).write_text(json.dumps(content))
    words = {n: Words(read_vocabulary(n, tmp_path / n), 99) for n in ("a", "b")}
    # The tokenizer of b knows "qq", its embedding does not.
    ids = words["b"].vocabulary.ids
    words["b"] = Words(words["b"].vocabulary, ids["qq"])
    assert ids["theq"] > ids["qq"]
    tokens = align(TokenizerPolicy("union"), words, "a").tokens
    assert set(tokens.ordinary) == {"q", "he"}
    documents = {name: read_document(name, tmp_path / name) for name in words}
    union = Tokenizer.from_str(json.dumps(union_document(tokens, documents)))
    assert union.encode("thexyzheqq").tokens == ["the", "xyz", "he", "q", "q"]


def test_a_token_whose_merges_have_no_parts_becomes_an_added_token(tmp_path: Path) -> None:
    documents = {
        "a": _bpe_document("ab", [], ()),
        "b": _bpe_document("abq", [("q", "q"), ("qq", "a")], ()),
    }
    for name, content in documents.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / TOKENIZER_FILE).write_text(json.dumps(content))
    tokens = OutputTokens("a", {"a": 0, "b": 1, "qqa": 2}, {"qqa": "b"}, {})
    document = union_document(tokens, documents)
    (entry,) = document["added_tokens"]
    assert entry["content"] == "qqa"
    assert entry["id"] == 2
    assert entry["special"] is False
    union = Tokenizer.from_str(json.dumps(document))
    assert union.encode("aqqab").tokens == ["a", "qqa", "b"]


def _bpe_document(
    characters: str, merges: list[tuple[str, str]], more: tuple[str, ...]
) -> dict[str, Any]:
    tokens = dict.fromkeys((*characters, *("".join(pair) for pair in merges), *more))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    model = {"type": "BPE", "vocab": vocabulary, "merges": [list(pair) for pair in merges]}
    return {"version": "1.0", "model": model, "added_tokens": []}


def test_unigram_tokens_keep_a_score(tmp_path: Path) -> None:
    pieces = dict.fromkeys("abcdefgh", -5.0) | {"ab": -4.0, "cd": -4.5}
    others = dict.fromkeys("abcdefghxy", -6.0) | {"abcd": -7.0, "gh": -30.0, "xy": -3.0}
    before, after, tokens = build(tmp_path, unigram(pieces), unigram(others), "<new>")
    assert set(tokens.ordinary) == {"x", "y", "abcd", "gh", "xy"}
    assert after.encode("abcdef").tokens == ["abcd", "e", "f"]
    assert after.encode("ghxy").tokens == ["gh", "xy"]
    assert after.encode("ab<|b|>h<new>").tokens == ["ab", "<|b|>", "h", "<new>"]
    for text in ("abcef", "efab", "hg", "ab§cd", "bacd", "§"):
        assert after.encode(text).ids == before.encode(text).ids


def test_wordpiece_and_word_tokens(tmp_path: Path) -> None:
    first = wordpiece(["play", "work", "##s", "##ed", "##er"])
    second = wordpiece(["play", "worker", "##ing", "##s"])
    before, after, _ = build(tmp_path / "wp", first, second)
    assert after.encode("playing workers worked").tokens == [
        *("play", "##ing", "worker", "##s", "work", "##ed")
    ]
    assert after.encode("plays works <|b|>").ids[:4] == before.encode("plays works").ids
    words = vocabularies.words
    before, after, _ = build(tmp_path / "wl", words(1, 2), words(2, 3, 4))
    assert after.encode("w1 w4 w9 <|b|> w3").tokens == ["w1", "w4", "<unk>", "<|b|>", "w3"]
    assert after.encode("w2 w9").ids == before.encode("w2 w9").ids


def test_tokens_of_another_kind_become_added_tokens(tmp_path: Path) -> None:
    pairs = {
        "wp": wordpiece(["Zebra", "##ing"]),
        "uni": unigram({"Zebra": -1.0, "Q": -3.0}),
        "words": (*SPECIAL, "Zebra"),
    }
    for name, second in pairs.items():
        before, after, tokens = build(tmp_path / name, byte_bpe(CODE, 320), second)
        assert "Zebra" in tokens.ordinary
        assert after.encode("tensor Zebra").tokens[-1] == "Zebra"
        assert after.encode(CODE[0]).ids == before.encode(CODE[0]).ids
    before, after, _ = build(tmp_path / "x", unigram({"a": -1.0, "b": -2.0}), byte_bpe(PROSE, 300))
    assert after.encode("bb bab b").ids == before.encode("bb bab b").ids
    assert after.encode("b merge").tokens[1:] != before.encode("b merge").tokens[1:]


def test_a_token_that_is_added_anywhere_is_found_whole(tmp_path: Path) -> None:
    second = (*SPECIAL, "<|im|>", "w1")
    third = (*SPECIAL, "w1")
    paths = [tmp_path / name for name in "abc"]
    for path, tokens, added in zip(
        paths, (SPECIAL, second, third), ((), (), ("<|im|>",)), strict=True
    ):
        save_tokenizer(path, tokens, added)
    found = {path.name: read_vocabulary(path.name, path) for path in paths}
    words = {name: Words(entry, len(entry.ids)) for name, entry in found.items()}
    tokens = align(TokenizerPolicy("union"), words, "a").tokens
    assert tokens.ids["<|im|>"] == 4
    assert tokens.added["<|im|>"]["special"] is True
    assert dict(tokens.ordinary) == {"w1": "b"}


def test_transformers_agrees_about_ids(tmp_path: Path) -> None:
    """Also about tokens that only tokenizer_config.json names."""
    save_tokenizer(tmp_path, byte_bpe(PROSE, 300), ("<|b|>",))
    config = tmp_path / "tokenizer_config.json"
    settings_ = json.loads(config.read_text())
    late = {"content": "<late>", "special": True, "normalized": False}
    settings_ |= {
        "pad_token": "[PAD]",
        "mask_token": {"__type": "AddedToken", "content": "[MASK]", "lstrip": True},
        "additional_special_tokens": ["<|b|>", "<|c|>"],
        "added_tokens_decoder": {"900": late | {"content": "<later>"}, "400": late},
    }
    config.write_text(json.dumps(settings_))
    found = read_vocabulary("m", tmp_path)
    assert dict(found.ids) == AutoTokenizer.from_pretrained(tmp_path).get_vocab()
    assert {"[PAD]", "[MASK]", "<late>", "<later>", "<|c|>"} <= set(found.added)
