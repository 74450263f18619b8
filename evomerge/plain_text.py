"""Text out of strangers' files made fit for one line of a terminal: no line breaks, no commands."""

from __future__ import annotations

import re

_LONGEST = 2000
_ACCOUNT = re.compile(r"^([A-Za-z][\w+.-]+:/+).*@", re.DOTALL)
_SECRET_OPTION = re.compile(r"([^?&#]*password[^=&#]*=)[^&#]*", re.IGNORECASE)
_HIDDEN = "***"


def one_line(text: str, *, longest: int = _LONGEST) -> str:
    """`text` with control characters spelled out, cut in its middle where it is too long.

    A tensor may be called anything: a line break in its name would look like a message of ours, and
    an escape sequence could repaint the terminal.
    """
    if len(text) > longest:
        half = (longest - 5) // 2
        text = f"{text[:half]} ... {text[-half:]}"
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else _spelled(sign) for sign in text)


def without_secrets(text: str) -> str:
    """A URL without what may be a password in it; anything else unchanged.

    People give URLs where paths belong, and put "/" and "@" into passwords, so everything up to the
    last "@" goes. A path made of a URL has only one "/" after the scheme.
    """
    if not re.match(r"[A-Za-z][\w+.-]+:/", text):
        return text
    text = _ACCOUNT.sub(rf"\1{_HIDDEN}@", text)
    path, mark, query = text.partition("?")
    return path + mark + _SECRET_OPTION.sub(rf"\1{_HIDDEN}", query)


def _spelled(sign: str) -> str:
    return sign.encode("unicode_escape", "surrogatepass").decode("ascii")
