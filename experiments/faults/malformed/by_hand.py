"""Malformed files of every kind that a person or an attacker might come up with."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from experiments.faults.malformed.cases import (
    Case,
    changed,
    copied,
    evaluating,
    merging,
    merging_model,
    scoring,
    searching,
)
from experiments.faults.malformed.world import INLINE, World

BOMB = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in range(9)
)
TEXTS: dict[str, str] = {
    "empty": "",
    "binary": "\x00\x01\x02",
    "a number": "3",
    "a list": "- 1\n- 2\n",
    "unclosed": "space: {merge_method: ties",
    "tabs": "space:\n\tmerge_method: ties\n",
    "two documents": "version: 1\n---\nversion: 1\n",
    "duplicate keys": "version: 1\nversion: 1\n",
    "alias bomb": BOMB,
    "an alias in itself": "version: &v [*v]\n",
    "deep": "a: " + "[" * 5000 + "]" * 5000,
    "deep blocks": "".join(" " * i + "a:\n" for i in range(300)),
    "a Python object": "version: !!python/object/apply:os.system [touch /tmp/pwned]\n",
    "an unknown tag": "version: !evil 1\n",
    "a wrong bool": "version: !!bool x\n",
    "a wrong time": "version: !!timestamp x\n",
    "a wrong number": "version: !!int x\n",
    "an empty number": "version: !!float ''\n",
    "a huge number": "version: " + "9" * 10000 + "\n",
    "a list as key": "? [a, b]\n: 1\n",
    "not UTF-8": "version: \udcff\n",
    "a terminal command": 'version: 1\n"\\x1b[2Jspace": {}\n',
}


def cases() -> Iterator[Case]:
    """All of them."""
    for part in (texts, spaces, recipes, headers, indexes, configs, adapters, tasks, ledgers, runs):
        yield from part()


def texts() -> Iterator[Case]:
    for name, text in TEXTS.items():

        def write(folder: Path, text: str = text) -> Path:
            path = folder / "file.yaml"
            path.write_bytes(text.encode("utf-8", "surrogateescape"))
            return path

        def validate(folder: Path, world: World, write: Any = write) -> list[object]:
            del world
            return ["validate", write(folder)]

        def merge(folder: Path, world: World, write: Any = write) -> list[object]:
            del world
            return ["merge", write(folder), folder / "out"]

        def task(folder: Path, world: World, write: Any = write) -> list[object]:
            (folder / "tasks").mkdir()
            write(folder / "tasks")
            return scoring(folder, world.parent, folder / "tasks")

        yield Case("space", name, validate, "file.yaml")
        yield Case("recipe", name, merge, "file.yaml")
        # YAML without a task in it is no task file
        yield Case("task", name, task, "" if name in _NO_TASKS else "file.yaml")
    for name, make in {"a pipe": os.mkfifo, "a folder": os.mkdir, "a loop": _loop}.items():

        def odd(folder: Path, world: World, make: Any = make) -> list[object]:
            del world
            make(folder / "file.yaml")
            return ["validate", folder / "file.yaml"]

        yield Case("space", name, odd, "file.yaml")


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _instead(path: Path, make: Callable[[Path], None]) -> None:
    """Something else under the name of a file."""
    path.unlink()
    make(path)


def _set(sound: Callable[[World], dict[str, Any]], path: str, value: object, act: Any) -> Any:
    def prepare(folder: Path, world: World) -> list[object]:
        found = act(folder, changed(sound(world), path, value))
        assert isinstance(found, list)
        return found

    return prepare


def spaces() -> Iterator[Case]:
    values: list[tuple[str, object]] = [
        ("version", 7),
        ("spaec", {}),
        ("space", None),
        ("space", {}),
        ("space", []),
        ("space.merge_method", "tise"),
        ("space.merge_method", None),
        ("space.merge_method", {"choice": []}),
        ("space.base_model", "/nowhere/at/all"),
        ("space.base_model", "~nobody-here/model"),
        ("space.base_model", "a" * 5000),
        ("space.base_model", "a\0b"),
        ("space.base_model", "org/name-that-is-not-there"),
        ("space.base_model", ""),
        ("space.base_model", 3),
        ("space.models", []),
        ("space.models", "a"),
        ("space.models.0.model", {"model": {"path": 3}}),
        ("space.models.0.weight", 1),
        ("space.layer_groups", 99),
        ("space.layer_groups", -1),
        ("space.layer_groups", [[0, 5]]),
        ("space.parameters.weight", {"float": [1.0, 0.0]}),
        ("space.parameters.weight", {"float": [0.0, float("inf")]}),
        ("space.parameters.weight", {"float": [0.0, 1.0], "init": 7}),
        ("space.parameters.weight", {"float": [0.0, 1.0], "per": ["modle"]}),
        ("space.parameters.weight", {"floot": [0.0, 1.0]}),
        ("space.parameters.density", -1),
        ("space.dtype", "float33"),
        ("objective", {}),
        ("objective.include", ["nowhere"]),
        ("objective.tasks", []),
        ("objective.tasks.0.task", "pikc"),
        ("objective.tasks.0.metric", "accc"),
        ("objective.tasks.0.weight", 0),
        ("objective.splits.search", 2),
        ("objective.splits.search", float("nan")),
        ("strategy.algorithm", "cma"),
        ("strategy.population", 1),
        ("strategy.sigma", float("nan")),
        ("budget.candidates", 0),
        ("budget", {"time": "soon"}),
        ("seed", -1),
        ("threads", 0),
        ("name", ["x"]),
        ("stages", []),
    ]
    for path, value in values:
        shown = str(value) if len(str(value)) < 40 else f"{str(value)[:37]}..."
        act = _set(World.space, path, value, searching)
        yield Case("space", f"{path}: {shown}", act)


def recipes() -> Iterator[Case]:
    values: list[tuple[str, object]] = [
        ("merge_method", "tise"),
        ("merge_methd", "ties"),
        ("merge_method", None),
        ("models", []),
        ("models", {}),
        ("models.0.model", "/nowhere"),
        ("models.0.model", "a+b+c"),
        ("models.0.parameters.weight", "much"),
        ("models.0.parameters.weight", float("nan")),
        ("models.0.parameters.density", 2),
        ("models.0.parameters.density", []),
        ("dtype", "int7"),
        ("base_model", None),
        ("slices", [{"sources": [{"model": "x", "layer_range": [5, 2]}]}]),
        ("tokenizer", {"source": "nobody"}),
        ("tokenizer_source", 7),
        ("chat_template", "{% for"),
        ("parameters", {"weight": [0.1] * 3, "x": 1}),
        ("modules", {"text": 3}),
    ]
    for path, value in values:
        act = _set(World.recipe, path, value, merging)
        yield Case("recipe", f"{path}: {value}", act)


def _header(entries: object, data: int = 8) -> bytes:
    raw = entries if isinstance(entries, bytes) else json.dumps(entries).encode()
    return struct.pack("<Q", len(raw)) + raw + b"\0" * data


def _entry(**changes: object) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes


HEADERS: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"1234567",
    "a length beyond the file": struct.pack("<Q", 2**63) + b"{}",
    "not JSON": _header(b"{nope"),
    "a list": _header([1, 2]),
    "deep": _header(b"[" * 100_000),
    "a million brackets": _header(b'{"a":[' + b"[]," * 700_000 + b"[]]}"),
    "a name twice": _header(b'{"a":{},"a":{}}'),
    "no entry": _header({"a": 3}),
    "unknown type": _header({"a": _entry(dtype="Q4_0")}),
    "negative shape": _header({"a": _entry(shape=[-2])}),
    "huge shape": _header({"a": _entry(shape=[2**62, 2**62])}),
    "shape of a bool": _header({"a": _entry(shape=[True])}),
    "a hundred axes": _header({"a": _entry(shape=[1] * 100)}),
    "swapped offsets": _header({"a": _entry(data_offsets=[8, 0])}),
    "offsets beyond the file": _header({"a": _entry(shape=[200], data_offsets=[0, 800])}),
    "overlap": _header({"a": _entry(), "b": _entry(data_offsets=[4, 12])}, 12),
    "a gap": _header({"a": _entry(data_offsets=[4, 12])}, 12),
    "bytes at the end": _header({"a": _entry()}, 99),
    "a huge number": _header(b'{"a":{"dtype":"F32","shape":[' + b"9" * 5000 + b"]}}"),
    "NaN as shape": _header(b'{"a":{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}}'),
    "a name with a line break": _header({"evomerge: all is well\n\x1b[2Jx": _entry(shape=[3])}),
}


def headers() -> Iterator[Case]:
    for name, raw in HEADERS.items():

        def prepare(folder: Path, world: World, raw: bytes = raw) -> list[object]:
            model = copied(world.parent, folder, "model")
            (model / "model.safetensors").write_bytes(raw)
            return merging_model(folder, model)

        yield Case("checkpoint header", name, prepare, "model.safetensors")

    def sparse(folder: Path, world: World) -> list[object]:
        model = copied(world.parent, folder, "model")
        size = 50 * 2**30
        with (model / "model.safetensors").open("wb") as file:
            file.write(_header({"a": _entry(shape=[size // 4], data_offsets=[0, size])}, 0))
            file.truncate(file.tell() + size)
        return merging_model(folder, model)

    yield Case("checkpoint header", "50 GiB of holes", sparse, "model.safetensors")
    odd: dict[str, Callable[[Path], None]] = {
        "a pipe": os.mkfifo,
        "a folder": lambda path: path.mkdir(),
        "a loop": _loop,
        "a device": lambda path: path.symlink_to("/dev/zero"),
        "a link to nothing": lambda path: path.symlink_to("nothing"),
    }
    for name, make in odd.items():

        def special(folder: Path, world: World, make: Any = make) -> list[object]:
            model = copied(world.parent, folder, "model")
            (model / "model.safetensors").unlink()
            make(model / "model.safetensors")
            return merging_model(folder, model)

        yield Case("checkpoint header", name, special, "model")


def indexes() -> Iterator[Case]:
    weights = "model.safetensors"
    contents: dict[str, object] = {
        "not JSON": b"{",
        "no weight_map": {},
        "a list": {"weight_map": [weights]},
        "numbers": {"weight_map": {"a": 3}},
        "an absolute path": {"weight_map": {"a": "/etc/passwd"}},
        "a path upwards": {"weight_map": {"a": "../base/model.safetensors"}},
        "a path upwards in the middle": {"weight_map": {"a": "x/../../base/model.safetensors"}},
        "backslashes": {"weight_map": {"a": "..\\model.safetensors"}},
        "a NUL": {"weight_map": {"a": "x\0.safetensors"}},
        "a long name": {"weight_map": {"a": "x" * 5000}},
        "a missing shard": {"weight_map": {"a": "y.safetensors"}},
        "a missing tensor": {"weight_map": {"a": "x.safetensors"}},
        "the folder itself": {"weight_map": {"a": "."}},
        "a pipe": {"weight_map": {"a": "pipe"}},
        "a device": {"weight_map": {"a": "zero"}},
        "70 MiB": b'{"weight_map": {"a": "' + b"x" * (70 * 2**20) + b'"}}',
        "deep": b"[" * 200_000,
    }
    for name, content in contents.items():

        def prepare(folder: Path, world: World, content: object = content) -> list[object]:
            model = copied(world.parent, folder, "model")
            (model / weights).rename(model / "x.safetensors")
            os.mkfifo(model / "pipe")
            (model / "zero").symlink_to("/dev/zero")
            raw = content if isinstance(content, bytes) else json.dumps(content).encode()
            (model / f"{weights}.index.json").write_bytes(raw)
            return merging_model(folder, model)

        yield Case("checkpoint index", name, prepare, "model")


def configs() -> Iterator[Case]:
    files = {"config.json": "config", "tokenizer.json": "tokenizer"}
    contents: dict[str, Any] = {
        "missing": None,
        "empty": b"",
        "not JSON": b"{",
        "a list": b"[]",
        "deep": b"[" * 200_000,
        "NaN everywhere": b'{"hidden_size": NaN, "model": NaN}',
        "300 MiB": b" " * (300 * 2**20),
        "six million lists": b'{"x": [' + b"[]," * 6_000_000 + b"[]]}",
        "a huge number": b'{"x": ' + b"9" * 10_000 + b"}",
        "not UTF-8": b'{"x": "\xff\xfe"}',
        "a pipe": os.mkfifo,
        "a loop": _loop,
    }
    for file, what in files.items():
        for name, content in contents.items():

            def prepare(
                folder: Path, world: World, file: str = file, content: Any = content
            ) -> list[object]:
                model = copied(world.parent, folder, "model")
                (model / file).unlink()
                if isinstance(content, bytes):
                    (model / file).write_bytes(content)
                elif content is not None:
                    content(model / file)
                return evaluating(folder, world, model)

            yield Case(f"checkpoint {what}", name, prepare, "model")
    values: list[tuple[str, object]] = [
        ("model_type", "no_such_type"),
        ("model_type", ["llama"]),
        ("architectures", ["NoSuchForCausalLM"]),
        ("num_hidden_layers", 10**9),
        ("num_hidden_layers", -1),
        ("hidden_size", 33),
        ("hidden_size", "big"),
        ("vocab_size", 10**12),
        ("num_attention_heads", 0),
        ("torch_dtype", "float99"),
        ("dtype", "float99"),
        ("rope_parameters", {"rope_type": "evil"}),
        ("quantization_config", {"quant_method": "gptq"}),
        ("auto_map", {"AutoConfig": "evil.Config"}),
    ]
    for key, value in values:

        def set_config(
            folder: Path, world: World, key: str = key, value: object = value
        ) -> list[object]:
            model = copied(world.parent, folder, "model")
            config = json.loads((model / "config.json").read_text()) | {key: value}
            if key == "auto_map":
                config["model_type"] = "evil"
            (model / "config.json").write_text(json.dumps(config))
            space = changed(world.space(), "space.base_model", str(model))
            return searching(folder, space)

        mentions = "" if key in ("torch_dtype", "architectures") else "model"
        # what the tensors show counts more than what the config says of them
        random = key in ("torch_dtype", "dtype", "architectures") or value == -1
        yield Case("checkpoint config", f"{key}: {value}", set_config, mentions, random)


def adapters() -> Iterator[Case]:
    values: list[tuple[str, object]] = [
        ("peft_type", "IA3"),
        ("r", 0),
        ("r", -3),
        ("r", "x"),
        ("lora_alpha", float("nan")),
        ("lora_alpha", None),
        ("target_modules", 3),
        ("target_modules", ["no_such_module"]),
        ("target_modules", "(a+)+$("),
        ("rank_pattern", {"(": 3}),
        ("rank_pattern", 3),
        ("bias", "some"),
        ("modules_to_save", 3),
        ("use_dora", True),
    ]
    for key, value in values:

        def prepare(
            folder: Path, world: World, key: str = key, value: object = value
        ) -> list[object]:
            adapter = copied(world.adapter, folder, "adapter")
            file = adapter / "adapter_config.json"
            file.write_text(json.dumps(json.loads(file.read_text()) | {key: value}))
            return merging_model(folder, f"{world.root / 'base'}+{adapter}")

        random = key in ("bias", "modules_to_save")
        yield Case("adapter", f"{key}: {value}", prepare, "adapter", random)
    for name, raw in HEADERS.items():

        def weights(folder: Path, world: World, raw: bytes = raw) -> list[object]:
            adapter = copied(world.adapter, folder, "adapter")
            (adapter / "adapter_model.safetensors").write_bytes(raw)
            return merging_model(folder, f"{world.root / 'base'}+{adapter}")

        yield Case("adapter", f"weights: {name}", weights, "adapter_model.safetensors")


def tasks() -> Iterator[Case]:
    values: list[tuple[str, object]] = [
        ("task", 3),
        ("taks", "x"),
        ("output_type", "telepathy"),
        ("dataset_path", "pandas"),
        ("dataset_path", "./script.py"),
        ("dataset_path", "org/no-such-data"),
        ("dataset_path", None),
        ("dataset_kwargs.data_files", {"validation": "none.jsonl"}),
        ("dataset_kwargs.data_files", {"validation": "http://example.com/x.jsonl"}),
        ("dataset_kwargs.data_files", {"validation": "/dev/zero"}),
        ("dataset_kwargs.data_files", {"validation": "pipe.jsonl"}),
        ("dataset_kwargs.data_files", 3),
        ("dataset_kwargs", {"data_files": {"validation": "pick.jsonl"}, "cache_dir": "/tmp/x"}),
        ("dataset_kwargs", {"data_files": {"validation": "pick.jsonl"}, "nonsense": 1}),
        ("dataset_kwargs", "pick.jsonl"),
        ("validation_split", "test"),
        ("validation_split", None),
        ("doc_to_text", "{{question"),
        ("doc_to_text", "{{nothing}}"),
        ("doc_to_text", "{{ cycler.__init__.__globals__ }}"),
        ("doc_to_text", "{{ 'a' * 10 ** 10 }}"),
        ("doc_to_text", "{% for i in range(10 ** 9) %}x{% endfor %}"),
        ("doc_to_text", "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}"),
        ("doc_to_text", 3),
        ("doc_to_target", "{{ 17 }}"),
        ("doc_to_target", "nobody"),
        ("doc_to_choice", "{{ [1, 2] }}"),
        ("doc_to_choice", "[" * 100),
        ("doc_to_choice", [1, 2]),
        ("metric_list", [{"metric": "/etc/evil.py"}]),
        ("metric_list", [{"metric": "glue"}]),
        ("metric_list", [{"metric": "acc", "aggregation": "none"}]),
        ("metric_list", "acc"),
        ("metric_list", []),
        ("filter_list", [{"name": "f", "filter": [{"function": "custom"}]}]),
        ("filter_list", [{"name": "f", "filter": [{"function": "nope"}]}]),
        ("process_docs", "os.system"),
        ("include", "pick.yaml"),
        ("include", "/etc/passwd"),
        ("unsafe_code", True),
        ("num_fewshot", -1),
        ("num_fewshot", "many"),
        ("fewshot_config", {"process_docs": "x"}),
        ("description", "{{ ''.__class__ }}"),
    ]
    for key, value in values:

        def prepare(
            folder: Path, world: World, key: str = key, value: object = value
        ) -> list[object]:
            from experiments.faults.malformed.world import TASK  # noqa: PLC0415

            place = copied(world.tasks, folder, "tasks")
            os.mkfifo(place / "pipe.jsonl")
            (place / "pick.yaml").write_text(json.dumps(changed(TASK, key, value)))
            return scoring(folder, world.parent, place)

        random = (key, value) in [("fewshot_config", {}), ("doc_to_text", 3)]
        mentions = "" if key == "include" else "pick"
        yield Case("task", f"{key}: {str(value)[:50]}", prepare, mentions, random or key in _MAY)
    lines = {
        "empty": b"",
        "not JSON": b"{nope\n",
        "a list": b"[1, 2]\n",
        "other columns": b'{"x": 1}\n',
        "NUL bytes": b"\0" * 1000,
        "not UTF-8": b'{"question": "\xff"}\n',
        "deep": b'{"question": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        "an answer that is no choice": b'{"question": "w1", "choices": ["w2"], "answer": 7}\n',
    }
    for name, raw in lines.items():

        def data(folder: Path, world: World, raw: bytes = raw) -> list[object]:
            place = copied(world.tasks, folder, "tasks")
            (place / "pick.jsonl").write_bytes(raw)
            return scoring(folder, world.parent, place)

        yield Case("task", f"data: {name}", data, "pick")


_NO_TASKS = ("empty", "duplicate keys", "a terminal command")
_MAY = ("doc_to_target", "num_fewshot", "metric_list", "taks2")


def ledgers() -> Iterator[Case]:
    def file(change: Callable[[Path], object], command: str) -> Any:
        def prepare(folder: Path, world: World) -> list[object]:
            run = copied(world.run, folder, "run")
            change(run / "ledger.sqlite")
            if command == "search":
                shutil.copy(world.root / "space.yaml", folder)
                return ["search", "--space", folder / "space.yaml", "--out", run, *INLINE]
            return [command, run]

        return prepare

    def foreign(path: Path) -> None:
        path.unlink()
        with sqlite3.connect(path) as base:
            base.execute("CREATE TABLE cookies (host TEXT)")
        base.close()

    def sql(statement: str) -> Callable[[Path], None]:
        def change(path: Path) -> None:
            with sqlite3.connect(path) as base:
                base.execute(statement)
            base.close()

        return change

    changes: dict[str, Callable[[Path], object]] = {
        "empty": lambda path: path.write_bytes(b""),
        "zeros": lambda path: path.write_bytes(b"\0" * 8192),
        "a text": lambda path: path.write_text("years of work"),
        "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        "a page": lambda path: path.write_bytes(path.read_bytes()[:4096]),
        "another program's": foreign,
        "missing": lambda path: path.unlink(),
        "a folder": lambda path: _instead(path, Path.mkdir),
        "a loop": lambda path: _instead(path, _loop),
        "a pipe": lambda path: _instead(path, os.mkfifo),
        "another format": sql("UPDATE meta SET value = '99' WHERE key = 'format'"),
        "another table": sql("CREATE TABLE more (x TEXT)"),
        "a trigger": sql("CREATE TRIGGER t AFTER INSERT ON events BEGIN SELECT 1; END"),
        "no candidates": sql("DROP TABLE candidates"),
        "a changed score": sql("UPDATE evaluations SET results = '[]'"),
        "a changed recipe": sql("UPDATE candidates SET recipe = '{}' WHERE id = 1"),
    }
    for name, change in changes.items():
        for command in ("status", "search"):
            # an empty ledger is one that was not begun yet
            begun = name not in ("missing", "empty") or command != "search"
            random = name == "a trigger" or not begun
            yield Case("ledger", f"{name}, {command}", file(change, command), "run", random)


def runs() -> Iterator[Case]:
    def other(name: str, content: bytes | None, command: list[str]) -> Any:
        def prepare(folder: Path, world: World) -> list[object]:
            run = copied(world.run, folder, "run")
            shutil.rmtree(run / "best")
            (run / name).unlink()
            if content is not None:
                (run / name).write_bytes(content)
            if command[0] == "search":
                shutil.copy(world.root / "space.yaml", folder)
                return ["search", "--space", folder / "space.yaml", "--out", run, *INLINE]
            rest = [folder / "out"] if command[0] == "export" else []
            return [command[0], run, *rest, *command[1:]]

        return prepare

    commands = (["status"], ["report"], ["best"], ["export", "--to", "recipe"], ["search"])
    for name in ("spec.resolved.yaml", "run.json"):
        for label, content in {
            "missing": None,
            "empty": b"",
            "a list": b"[1]",
            "garbage": b"\xff\xfe{",
            "wrong types": b'{"searches": 3, "space_file": 7, "name": {}, "objective": []}',
        }.items():
            for command in commands:
                what = f"{name} {label}, {command[0]}"
                # the rest may not need the file
                yield Case("run directory", what, other(name, content, command), "run", True)

    def nothing(folder: Path, world: World) -> list[object]:
        del world
        (folder / "run").mkdir()
        return ["status", folder / "run"]

    def full(folder: Path, world: World) -> list[object]:
        (folder / "out").mkdir()
        (folder / "out" / "thesis.txt").write_text("years of work")
        return searching(folder, world.space())

    yield Case("run directory", "an empty folder", nothing, "run")
    yield Case("run directory", "somebody's folder", full, "out")
