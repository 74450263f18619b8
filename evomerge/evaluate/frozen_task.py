"""A task whose prompts are built once; it hands lm-eval the requests of any subset of its items."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, final

from evomerge.evaluate.gold import right_choices
from evomerge.evaluate.limits import limited
from evomerge.evaluate.task_loading import LoadedTask

_FILTER_SECONDS = 60.0
_FILTER_SECONDS_EACH = 0.1


class ChatFormat(Protocol):
    """What lm-eval asks of a model to wrap prompts in its chat template."""

    tokenizer_name: str

    def apply_chat_template(self, chat_history: list[dict[str, str]]) -> str:
        """The conversation as one prompt."""


@final
class FrozenTask:
    """Stands in for an lm-eval task in `lm_eval.evaluate`, which asks for exactly these names.

    Building prompts costs more than a fast model's answers, and few-shot examples are drawn in
    the order of the documents, so a subset built on its own would get other examples. Filters and
    metrics stay the task's own.
    """

    def __init__(
        self,
        loaded: LoadedTask,
        seed: int,
        *,
        chat: ChatFormat | None = None,
        limit: int | None = None,
    ) -> None:
        """Build the prompts of the first `limit` documents, default all; few-shot seed `seed`."""
        task = loaded.task
        task.set_fewshot_seed(seed=seed)
        task.build_all_requests(
            limit=limit,
            rank=0,
            world_size=1,
            apply_chat_template=chat is not None,
            fewshot_as_multiturn=chat is not None,
            chat_template=chat.apply_chat_template if chat else None,
            tokenizer_name=chat.tokenizer_name if chat else "",
        )
        self._task = task
        self._docs = loaded.docs
        self._requests: dict[int, list[Any]] = defaultdict(list)
        for instance in task.instances:
            self._requests[instance.doc_id].append(instance)
        self._settings = task.dump_config()
        self._chosen: tuple[int, ...] = tuple(self._requests)
        self.VERSION = task.VERSION
        self.UNSAFE_CODE = getattr(task, "UNSAFE_CODE", False)
        self.MULTIMODAL = getattr(task, "MULTIMODAL", False)

    def choose(self, docs: Sequence[int]) -> None:
        """Evaluate only the documents at these positions from now on, in ascending order."""
        self._chosen = tuple(sorted(docs))

    def choices(self, doc: int) -> tuple[list[str], tuple[int, ...]]:
        """The choices of a document and the positions of the right ones."""
        choices = list(self._task.doc_to_choice(self._docs[doc]))
        return choices, right_choices(self._task, self._docs[doc], choices)

    def answer(self, doc: int) -> tuple[str, str]:
        """The prompt of a document and its right answer, the first where several are right."""
        target = self._task.doc_to_target(self._docs[doc])
        first = target[0] if isinstance(target, list) else target
        return str(self._requests[doc][0].args[0]), f"{self._delimiter}{first}"

    def text(self, doc: int) -> str:
        """The prompt of the document at this position, with its right answer where it is text."""
        first = self._requests[doc][0]
        target = self._task.doc_to_target(self._docs[doc])
        continuations = [i.args[1] for i in self._requests[doc] if _is_pair(i.args)]
        if isinstance(target, int) and 0 <= target < len(continuations):
            return str(first.args[0]) + str(continuations[target])
        answer = f"{self._delimiter}{target}" if isinstance(target, str) else ""
        return str(first.args[0]) + answer

    @property
    def _delimiter(self) -> str:
        """What stands between a prompt and its answer; none at all is a choice, too."""
        return str(self._settings.get("target_delimiter", " "))

    @property
    def task_name(self) -> str:
        """The task's name."""
        return str(self._task.task_name)

    @property
    def eval_docs(self) -> tuple[Any, ...]:
        """All documents of the evaluated split."""
        return self._docs

    @property
    def instances(self) -> list[Any]:
        """The requests of the chosen documents."""
        return list(self._task.instances)

    def build_all_requests(self, **settings: object) -> None:
        """Take the chosen requests; lm-eval's settings came into effect when they were built."""
        del settings
        chosen = [instance for doc in self._chosen for instance in self._requests[doc]]
        for instance in chosen:  # answers are appended to what the previous model left there
            instance.resps, instance.filtered_resps = [], {}
        self._task._instances = chosen

    def doc_iterator(self, **settings: object) -> Iterator[tuple[int, Any]]:
        """The chosen documents with their true positions."""
        del settings
        return ((doc, self._docs[doc]) for doc in self._chosen)

    def apply_filters(self) -> None:
        """Let the task's filters read the answers; raises Exhausted.

        A pattern with nested repeats can take years over one answer.
        """
        with limited(_FILTER_SECONDS + _FILTER_SECONDS_EACH * len(self._task.instances)):
            self._task.apply_filters()

    def process_results(self, doc: Any, results: list[Any]) -> Any:
        """The task's metrics of one document, which can have patterns, too; raises Exhausted."""
        with limited(_FILTER_SECONDS):
            return self._task.process_results(doc, results)

    def doc_to_target(self, doc: Any) -> Any:
        """The right answer, for the log."""
        return self._task.doc_to_target(doc)

    def aggregation(self) -> Any:
        """The task's aggregation functions by metric."""
        return self._task.aggregation()

    def higher_is_better(self) -> Any:
        """The task's directions by metric."""
        return self._task.higher_is_better()

    def dump_config(self) -> dict[str, Any]:
        """The task's configuration, for the log."""
        return dict(self._settings)


def _is_pair(arguments: Sequence[Any]) -> bool:
    """Whether these are a context and a continuation."""
    return len(arguments) > 1 and isinstance(arguments[1], str)
