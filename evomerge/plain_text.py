"""Text out of strangers' files made fit for one line of a terminal: no line breaks, no commands."""

from __future__ import annotations

_LONGEST = 2000


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


def _spelled(sign: str) -> str:
    return sign.encode("unicode_escape", "surrogatepass").decode("ascii")
