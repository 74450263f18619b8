"""Chat templates: the built-in ones, the one most models share, and whether a text is Jinja."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from jinja2 import TemplateSyntaxError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from evomerge.recipe import Recipe
from evomerge.signatures import did_you_mean
from evomerge.text_files import read_text
from evomerge.weights.json_files import read_json
from evomerge.weights.vocabulary_file import SETTINGS_FILE

_MAX_MIB = 16
TEMPLATE_FILE = "chat_template.jinja"
AUTO = "auto"

_CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{% endif %}"""

_LLAMA3 = """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

# The format has no place for a system message: it opens the first turn of the user.
_MISTRAL = """\
{{- bos_token }}
{%- set opening = namespace(text='') %}
{%- for message in messages %}
{%- if message['role'] == 'system' %}{% set opening.text = message['content'] + '\\n\\n' %}
{%- elif message['role'] == 'user' %}
{{- '[INST] ' + opening.text + message['content'] + ' [/INST]' }}
{%- set opening.text = '' %}
{%- else %}{{- ' ' + message['content'] | trim + eos_token }}{% endif %}
{%- endfor %}"""

_ALPACA = """\
{{- bos_token }}
{%- if messages[0]['role'] != 'system' %}
{{- 'Below is an instruction that describes a task. ' }}
{{- 'Write a response that appropriately completes the request.\\n\\n' }}
{%- endif %}
{%- for message in messages %}
{%- if message['role'] == 'system' %}{{- message['content'] + '\\n\\n' }}
{%- elif message['role'] == 'user' %}
{{- '### Instruction:\\n' + message['content'] + '\\n\\n' }}
{%- else %}{{- '### Response:\\n' + message['content'] + eos_token + '\\n\\n' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '### Response:\\n' }}{% endif %}"""

_EXAONE = """\
{%- if messages[0]['role'] != 'system' %}{{- '[|system|][|endofturn|]\\n' }}{% endif %}
{%- for message in messages %}
{{- '[|' + message['role'] + '|]' + message['content'] }}
{{- '\\n' if message['role'] == 'user' else '[|endofturn|]\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '[|assistant|]' }}{% endif %}"""

BUILT_IN: Mapping[str, str] = MappingProxyType(
    {
        "alpaca": _ALPACA,
        "chatml": _CHATML,
        "exaone": _EXAONE,
        "llama3": _LLAMA3,
        "mistral": _MISTRAL,
    }
)


class _Generation(Extension):
    """Accepts transformers' {% generation %} block, which marks the assistant's turns."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


# As transformers renders templates; here they are only parsed.
_JINJA = ImmutableSandboxedEnvironment(
    trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
)


def template_problems(recipe: Recipe) -> Iterator[str]:
    """Why the recipe's `chat_template` cannot be used, one line; nothing when it can."""
    text = recipe.chat_template
    if text is None or text == AUTO or text in BUILT_IN:
        return
    if "{" not in text:
        hint = did_you_mean(text, (AUTO, *BUILT_IN))
        yield f"chat_template: '{text}' is neither a built-in template nor Jinja text; {hint}"
        return
    try:
        _JINJA.parse(text)
    except TemplateSyntaxError as error:
        reason = " ".join(str(error.message).split())
        yield f"chat_template: line {error.lineno} is not valid Jinja ({reason}): correct it"
    except RecursionError:
        yield "chat_template: too deeply nested to be valid Jinja: correct it"


def chosen_template(recipe: Recipe, directories: Iterable[Path]) -> str | None:
    """The text of the output's template; None to leave the tokenizer's own.

    `directories` are those of the recipe's models in order: "auto" is the template that most of
    them have, of several the one that comes first.

    Raises:
        InvalidInput: a model's file is damaged.
    """
    if recipe.chat_template != AUTO:
        text = recipe.chat_template
        return text if text is None else BUILT_IN.get(text, text)
    found = [text for text in map(template_of, directories) if text is not None]
    return Counter(found).most_common(1)[0][0] if found else None


def template_of(directory: Path) -> str | None:
    """A model's own template: of a file or, in older models, of tokenizer_config.json."""
    path = directory / TEMPLATE_FILE
    if path.exists():
        return read_text(path, max_mib=_MAX_MIB)
    settings = directory / SETTINGS_FILE
    value: Any = read_json(settings).get("chat_template") if settings.exists() else None
    if isinstance(value, list):  # several by name; "default" is the one for chats
        named = {e.get("name"): e.get("template") for e in value if isinstance(e, dict)}
        value = named.get("default")
    return value if isinstance(value, str) else None
