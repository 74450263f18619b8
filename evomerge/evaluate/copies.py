"""Knows which items are copies of one another, by their data or by their question and answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from evomerge.evaluate.evaluator import ItemInfo
from evomerge.evaluate.items import content_part


@final
class Copies:
    """Groups of items, over all tasks, that must not be told apart by a split.

    Two items are copies if they are the same document, perhaps with other prompts, or if they have
    the same question, choices and answer; and copies of copies are copies.
    """

    def __init__(
        self,
        items: Mapping[str, tuple[str, ...]],
        infos: Mapping[str, Mapping[str, ItemInfo]],
    ) -> None:
        """Join the items of all tasks; `infos` has what they ask, as far as known."""
        self._above: dict[str, str] = {}
        with_text: dict[str, str] = {}
        for task, ids in items.items():
            known = infos.get(task, {})
            for item in ids:
                content = content_part(item)
                self._above.setdefault(content, content)
                if item in known:
                    self._join(content, with_text.setdefault(known[item].text_digest, content))
        for content in sorted(self._above):  # what stands above is smaller, and done already
            self._above[content] = self._above[self._above[content]]

    def first(self, item: str) -> str:
        """The content that stands for all copies of `item`: the smallest."""
        content = content_part(item)
        while (above := self._above[content]) != content:
            content = above
        return content

    def _join(self, one: str, other: str) -> None:
        one, other = sorted((self.first(one), self.first(other)))
        self._above[other] = one
