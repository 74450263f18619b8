"""Templates and patterns of strangers: no way out, and no way to stop the machine."""

from __future__ import annotations

import re
import resource
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import SecurityError

from evomerge.evaluate import sandbox
from evomerge.evaluate.limits import Exhausted, limited
from evomerge.evaluate.sandbox import Sandbox


def rendered(source: str, **doc: Any) -> str:
    return Sandbox({}).from_string(source).render(**doc)


class Image:
    """Like Pillow's: a harmless name that writes a file."""

    def save(self, path: str) -> None:
        Path(path).touch()


@pytest.mark.parametrize(
    "source",
    [
        "{{ cycler.__init__.__globals__.os.popen('true').read() }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ image.save(path) }}",
        "{{ (image|attr('save'))(path) }}",
        "{{ [image]|map(attribute='save')|map('call', path)|list }}",
        "{% set f = image.save %}{{ f(path) }}",
        "{{ call(path) }}",
        "{{ data.update({1: 2}) }}",
        "{{ '{0.__class__.__init__}'.format(image) }}",
        "{{ namespace.__init__ }}",
        "{{ self._TemplateReference__context.environment }}",
    ],
)
def test_ways_out_are_closed(tmp_path: Path, source: str) -> None:
    path = tmp_path / "marker"
    call: Callable[[str], None] = Image().save
    errors = (SecurityError, Exception) if "map('call'" in source else (SecurityError,)
    with pytest.raises(errors, match=r".+"):
        rendered(source, image=Image(), path=str(path), call=call, data={})
    assert not path.exists()


def test_ordinary_templates_work() -> None:
    source = (
        "{{ name.upper() }} {{ '{:>3}'.format(1) }} {{ data.items()|list }} {{ rows.index(2) }}"
        "{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}{% set c = cycler(1, 2) %}{{ c.next() }}"
        "{% set j = joiner(',') %}{{ j() }}{{ j() }}{{ dict(a=1) }}{{ range(3)|list }}"
        "{% for x in rows recursive %}{{ loop.cycle('a', 'b') }}{% endfor %}"
        "{% set n = namespace(k=1) %}{% set n.k = 2 %}{{ n.k }}"
    )
    expected = "A   1 [('k', 'v')] 1<1>1,{'a': 1}[0, 1, 2]ab2"
    assert rendered(source, name="a", data={"k": "v"}, rows=[1, 2]) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10 ** 10 }}",
        "{{ text * 10 ** 11 }}",
        "{{ '%9999999999d' % 1 }}",
        "{{ '{:>9999999999}'.format(1) }}",
        "{{ 'a'|center(9999999999) }}",
        "{% set n = namespace(x=text) %}"
        "{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    ],
)
def test_memory_is_limited(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MEMORY_MIB", 64)
    before = resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(Exhausted, match="more than 64 MiB of memory"):
        rendered(source, text="a" * 20)
    assert resource.getrlimit(resource.RLIMIT_AS) == before


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{{ 9 ** (9 ** 9) }}",
        "{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab'|sub('(a+)+$') }}",
    ],
)
def test_time_is_limited(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "SECONDS", 0.2)
    before = signal.getsignal(signal.SIGVTALRM)
    environment = Sandbox({"sub": lambda text, pattern: re.sub(pattern, "", text)})
    with pytest.raises(Exhausted, match="more processor time"):
        environment.from_string(source).render()
    assert signal.getsignal(signal.SIGVTALRM) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_other_threads_have_no_limit_of_time() -> None:
    done: list[int] = []

    def work() -> None:
        with limited(0.0001):
            done.append(sum(range(100_000)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [4999950000]
