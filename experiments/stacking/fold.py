"""Do folded stacks compute what scaled layers do? Every family, and SmolLM2 with time and memory.

    python -m experiments.stacking.fold

Run from the top of the source tree. Random models of four and five layers of every family become
stacks of 11 hops with repeats, out of order, with scales of 0.4 to 1.5; each is compared with the
plain model written from it, loaded again. The same for 36 hops of the fine-tunes of SmolLM2, where
experiments/smollm2 has made them. Writes fold.json, and the tables of README.md.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from evomerge.recipe import Recipe
from evomerge.stack import Hop, path_along, recipe_of
from evomerge.weights.materialize import Materializer
from evomerge.weights.pool import ParentPool
from evomerge.weights.quiet import quiet_loading
from evomerge.weights.resident_stack import ResidentStack
from evomerge.weights.stack_rules import FOLD_RULES
from evomerge.weights.writer import write_model
from tests import stacks

HERE = Path(__file__).parent
SMOLLM2 = HERE.parent / "smollm2" / "parents"
TEXT = (
    "The river runs through three countries before it reaches the sea. In spring the snow of the "
    "mountains melts, and the villages along its banks prepare for high water. Why do people stay?"
)
Row = dict[str, Any]


def main() -> None:
    """Measure everything that can be measured here."""
    rows = [row for family in stacks.FAMILIES for row in _family(family)]
    found: dict[str, Any] = {"families": rows}
    if (SMOLLM2 / "write" / "model.safetensors").is_file():
        found |= _smollm2()
    (HERE / "fold.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    readme = HERE / "README.md"
    if readme.exists():
        text = readme.read_text(encoding="utf-8")
        for name, lines in _tables(found).items():
            text = _replaced(text, name, "\n".join(lines))
        readme.write_text(text, encoding="utf-8")
    print("\n".join(line for lines in _tables(found).values() for line in ("", *lines)))


def _family(family: str) -> list[Row]:
    """One row per scale mode that the family has."""
    rule = FOLD_RULES[family.removesuffix("-biases")]
    modes = ("stream", "mlp_delta") if rule.mlp_module else ("stream",)
    with tempfile.TemporaryDirectory() as folder:
        stacks.parents(family, Path(folder))
        pool, texts = ParentPool.open(["a", "b"], Path(folder)), stacks.texts()
        rows = ((mode, _compared(stacks.tangled(mode), pool, texts)) for mode in modes)
        return [{"family": family, "mode": mode, **row} for mode, row in rows]


def _smollm2() -> dict[str, Any]:
    """36 hops: the block from 10 to 15 twice, a scale at every hop."""
    pool = ParentPool.open(["write", "read"], SMOLLM2)
    resident = ResidentStack(pool)
    resident.become(_long("float32", seed=0))
    texts = resident.tokenizer("write")(TEXT, return_tensors="pt").input_ids
    rows = [
        {"dtype": "float32", "mode": mode, **_compared(_long("float32", mode=mode), pool, texts)}
        for mode in ("stream", "mlp_delta")
    ]
    exact = _logits(resident.model, texts)
    for seams in (2, 35):
        recipe = _long("bfloat16", seams=seams)
        row = _compared(recipe, pool, texts)
        if seams == 35:
            resident.become(recipe)
            agreed = _agreement(_logits(resident.model, texts), exact)
            row["bfloat16 unfolded against float32"] = agreed
        rows.append({"dtype": "bfloat16", "mode": "stream", "seams": seams, **row})
    return {"smollm2": rows, "cost": _cost(pool, resident)}


def _long(dtype: str, *, mode: str = "stream", seed: int = 0, seams: int = 35) -> Recipe:
    draw = random.Random(seed)
    layers = [*range(16), *range(10, 30)]
    gains = [1.0, *(draw.uniform(0.7, 1.3) for _ in layers[1:])]
    scaled = set(range(36)) if seams == 35 else {16, 22}
    path = [
        Hop("read" if 16 <= hop < 22 else "write", layer, gains[hop] if hop in scaled else 1.0)
        for hop, layer in enumerate(layers)
    ]
    return recipe_of(path_along(path), donor="write", scale_mode=mode, dtype=dtype)


def _compared(recipe: Recipe, pool: ParentPool, texts: torch.Tensor) -> Row:
    """The stack in memory against the model written from it."""
    resident = ResidentStack(pool)
    resident.become(recipe)
    expected = _logits(resident.model, texts)
    with tempfile.TemporaryDirectory() as folder:
        write_model(recipe, Materializer(pool), Path(folder) / "out")
        written = _loaded(Path(folder) / "out")
        found = _logits(written, texts)
        long, short = (_continued(written, texts, cached=cached) for cached in (True, False))
        own = _continued(resident.model, texts, cached=True)
    return {
        "largest": float((found - expected).abs().max()),
        "deviation": float(expected.std()),
        "agreement": _agreement(found, expected),
        "cached": torch.equal(long, short),
        "texts": torch.equal(long, own),
    }


def _agreement(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.argmax(-1) == expected.argmax(-1)).float().mean())


def _logits(model: PreTrainedModel, texts: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(texts).logits.float()
    return found


def _continued(model: PreTrainedModel, texts: torch.Tensor, *, cached: bool) -> torch.Tensor:
    """Sixteen more tokens, greedily."""
    found: torch.Tensor = model.generate(
        texts,
        attention_mask=torch.ones_like(texts),
        max_new_tokens=16,
        min_new_tokens=16,
        do_sample=False,
        use_cache=cached,
        pad_token_id=0,
    )
    return found


def _loaded(folder: Path) -> PreTrainedModel:
    with quiet_loading():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    return model.eval()


def _cost(pool: ParentPool, resident: ResidentStack) -> Row:
    """Seconds and own memory of a candidate by reference, and of one written and loaded."""
    resident.become(_long("float32"))
    recipes = [_long("float32", seed=seed) for seed in range(20)]
    seconds = [_seconds(partial(resident.become, recipe)) for recipe in recipes]
    before = _own_megabytes()
    fresh = ResidentStack(pool)
    loading = _seconds(lambda: fresh.become(_long("float32")))
    by_reference = _own_megabytes() - before
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        writing = _seconds(lambda: write_model(_long("float32"), Materializer(pool), out))
        models: list[PreTrainedModel] = []
        reading = _seconds(lambda: models.append(_loaded(out)))
        size = sum(file.stat().st_size for file in out.glob("*.safetensors"))
    return {
        "become": statistics.median(seconds),
        "first": loading,
        "own": by_reference,
        "write": writing,
        "load": reading,
        "rebuilt": size / 1e6,
    }


def _seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _own_megabytes() -> float:
    """What only this process has, in MB: mapped files that nobody writes to do not count."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1e3


def _tables(found: dict[str, Any]) -> dict[str, list[str]]:
    tables = {"families": [_HEAD.format("family"), "|---|---|---|---|---|---|---|"]}
    tables["families"] += [_line(row["family"], row) for row in found["families"]]
    if "smollm2" in found:
        head = _HEAD.format("type, scales")
        names = [f"{r['dtype']}, {r.get('seams', 35)}" for r in found["smollm2"]]
        rows = [_line(name, row) for name, row in zip(names, found["smollm2"], strict=True)]
        tables["smollm2"] = [head, "|---|---|---|---|---|---|---|", *rows]
        cost = found["cost"]
        rebuilt = cost["write"] + cost["load"]
        tables["cost"] = [
            "| | seconds | memory of its own |",
            "|---|---|---|",
            f"| by reference | {cost['become']:.4f} | {cost['own']:.0f} MB |",
            f"| by reference, the first one | {cost['first']:.1f} | the same |",
            f"| written and loaded | {rebuilt:.1f} | {cost['rebuilt']:.0f} MB |",
        ]
    return tables


_HEAD = "| {} | mode | largest difference | deviation | arg-max alike | cached = not | same text |"


def _line(name: str, row: Row) -> str:
    answers = ["yes" if row[key] else "no" for key in ("cached", "texts")]
    numbers = f"{row['largest']:.1e} | {row['deviation']:.2f} | {row['agreement']:.1%}"
    return f"| {name} | {row['mode']} | {numbers} | {' | '.join(answers)} |"


def _replaced(text: str, name: str, table: str) -> str:
    pattern = re.compile(f"<!-- {name} -->.*?<!-- end -->", re.DOTALL)
    return pattern.sub(lambda _: f"<!-- {name} -->\n{table}\n<!-- end -->", text)


if __name__ == "__main__":
    main()
