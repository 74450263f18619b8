"""Which weights of a family take a stack's scales, so that plain layers compute the same; no torch.

A norm does not see the size of its input (RMSNorm and LayerNorm, but for their epsilon). So where
the hidden state x_t = C_t y_t with C_t = s_0 s_1 ... s_t, layers whose additions to the residual
are divided by C_t compute y_t, and the final norm removes what is left of C.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from evomerge.errors import PreflightFailed

STREAM = "stream"


@dataclass(frozen=True)
class FoldRule:
    """Parts of the names of a layer's tensors, by what they do to the residual stream.

    Attributes:
        attention: the last weights (and biases) before the attention's result is added.
        mlp: the last ones before the MLP's is.
        readers: what reads the stream without a norm before it.
        centred: whether the former two are gains that are stored as their distance from 1.
        mlp_module: the module of a layer whose output is what the MLP adds; None where one sum
            adds both results, so that layers have no MLP of their own to scale.
    """

    attention: tuple[str, ...]
    mlp: tuple[str, ...]
    readers: tuple[str, ...] = ()
    centred: bool = False
    mlp_module: str | None = "mlp"


_PRE_NORM = FoldRule(("self_attn.o_proj",), ("mlp.down_proj",))
_EXPERTS = FoldRule(
    ("self_attn.o_proj",),
    (".w2.", "experts.down_proj"),  # one by one in files, or all together
)
_SANDWICH = FoldRule(
    ("post_attention_layernorm",),
    ("post_feedforward_layernorm",),
    centred=True,
    mlp_module="post_feedforward_layernorm",
)
_POST_NORM = FoldRule(
    ("post_attention_layernorm",),
    ("post_feedforward_layernorm",),
    # biases are added to what is already C_t times too small without them
    readers=tuple(f"{name}_proj.weight" for name in ("q", "k", "v", "gate", "up")),
    mlp_module="post_feedforward_layernorm",
)

FOLD_RULES: Mapping[str, FoldRule] = MappingProxyType(
    {
        "llama": _PRE_NORM,
        "mistral": _PRE_NORM,
        "qwen2": _PRE_NORM,
        "qwen3": _PRE_NORM,
        "mixtral": _EXPERTS,
        "gemma2": _SANDWICH,
        "gemma3_text": _SANDWICH,
        "olmo2": _POST_NORM,
        "gpt_neox": FoldRule(("attention.dense",), ("mlp.dense_4h_to_h",), mlp_module=None),
        "phi": FoldRule(("self_attn.dense",), ("mlp.fc2",), mlp_module=None),
        "gpt2": FoldRule(("attn.c_proj",), ("mlp.c_proj",)),
    }
)
"""By `model_type`; every row is proven by comparison with scaled layers."""


def fold_rule(model_type: str, scale_mode: str) -> FoldRule:
    """The rule for stacks with scales of one family.

    Raises:
        PreflightFailed: scales of this family cannot be folded, or not in this mode.
    """
    known = ", ".join(
        name for name, rule in FOLD_RULES.items() if scale_mode == STREAM or rule.mlp_module
    )
    rule = FOLD_RULES.get(model_type)
    if rule is None:
        raise PreflightFailed(
            f"scale: no rule to fold scales into the weights of '{model_type}' models: leave the "
            f"scales out, or use one of {known}"
        )
    if scale_mode != STREAM and rule.mlp_module is None:
        raise PreflightFailed(
            f"scale_mode: '{model_type}' layers add attention and MLP at once, so {scale_mode} has "
            f"no weights to scale: use {STREAM}, or one of {known}"
        )
    return rule
