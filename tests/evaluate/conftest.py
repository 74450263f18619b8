from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import datasets
import huggingface_hub.constants
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

EXAMPLES = Path(__file__).resolve().parents[2] / "evals" / "example"
ROWS = {"train": 10, "validation": 24}
TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
ROLLING = """\
task: rolling
dataset_path: json
dataset_kwargs: {data_files: {validation: rolling.jsonl}}
output_type: loglikelihood_rolling
validation_split: validation
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - {metric: word_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: byte_perplexity, aggregation: weighted_perplexity, higher_is_better: false}
  - {metric: bits_per_byte, aggregation: bits_per_byte, higher_is_better: false}
"""
LETTER = """\
include: example_choice.yaml
task: letter
doc_to_text: "{{passage}}\\n{{name}}?\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\nAnswer:"
doc_to_choice: ["A", "B", "C", "D"]
"""


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Data sets of tests do not pile up in the user's cache."""
    folder = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        patch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
        patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        yield folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example tasks with fewer items, a single-token variant, and a perplexity task."""
    target = tmp_path_factory.mktemp("tasks")
    for path in EXAMPLES.glob("*.yaml"):
        shutil.copy(path, target)
    for path in EXAMPLES.glob("*.jsonl"):
        lines = path.read_text(encoding="utf-8").splitlines()
        kept = lines[: ROWS[path.stem.rpartition("_")[2]]]
        (target / path.name).write_text("\n".join(kept) + "\n", encoding="utf-8")
    lines = (target / "extract_validation.jsonl").read_text(encoding="utf-8").splitlines()
    passages = [json.loads(line) for line in lines]
    rows = [{"text": " ".join(row["passage"] for row in passages[i : i + 3])} for i in range(9)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (target / "rolling.jsonl").write_text(text, encoding="utf-8")
    (target / "rolling.yaml").write_text(ROLLING, encoding="utf-8")
    (target / "letter.yaml").write_text(LETTER, encoding="utf-8")
    return target


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    trained = ByteLevelBPETokenizer()
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.jsonl"))]
    trained.train_from_iterator(
        texts, vocab_size=400, special_tokens=["<eos>"], show_progress=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=trained._tokenizer, eos_token="<eos>", chat_template=TEMPLATE
    )


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A random Llama that likes to say the names of jobs, so that generation scores something."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=512,
            initializer_range=0.3,
            tie_word_embeddings=False,
            bos_token_id=0,
            eos_token_id=0,
        )
        made = LlamaForCausalLM(config).eval()
    jobs = ("baker", "doctor", "farmer", "nurse", "painter", "pilot", "sailor", "teacher")
    tokens = [tokenizer.encode(f" {job}")[0] for job in jobs]
    with torch.no_grad():
        made.lm_head.weight[tokens] *= 2.0
    return made
