from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from evomerge.errors import InvalidInput
from evomerge.weights.headers import MAX_HEADER_BYTES, TensorInfo, encode_header, read_header


def _file(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def _entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_reads_what_safetensors_wrote(tmp_path: Path) -> None:
    tensors = {
        "b": torch.zeros(2, 3, dtype=torch.bfloat16),
        "a": torch.zeros((), dtype=torch.int64),
        "empty": torch.zeros(0, 4),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    infos = read_header(tmp_path / "x.safetensors")
    assert {(i.name, i.dtype, i.shape) for i in infos.values()} == {
        ("b", "bfloat16", (2, 3)),
        ("a", "int64", ()),
        ("empty", "float32", (0, 4)),
    }
    assert infos["b"].nbytes == 12
    assert infos["b"].is_mergeable
    assert not infos["a"].is_mergeable


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["float64", "float32", "bfloat16", "int8"]),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        max_size=5,
    )
)
@settings(max_examples=30, deadline=None)
def test_encoded_headers_read_back_here_and_in_safetensors(
    tmp_path_factory: pytest.TempPathFactory, tensors: list[tuple[str, list[int]]]
) -> None:
    infos = [TensorInfo(f"t{i} é", d, tuple(s)) for i, (d, s) in enumerate(tensors)]
    infos.sort(key=lambda info: -info.itemsize)
    path = tmp_path_factory.mktemp("h") / "x.safetensors"
    data = bytes(sum(info.nbytes for info in infos))
    path.write_bytes(encode_header(infos, {"format": "pt"}) + data)
    assert set(read_header(path).values()) == set(infos)
    loaded = load_file(path)
    assert {n: tuple(t.shape) for n, t in loaded.items()} == {i.name: i.shape for i in infos}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        ({"a": _entry()}, b"\0" * 7, "truncated: expected 8 bytes of data, got 7"),
        ({"a": _entry()}, b"\0" * 9, "1 bytes that belong to no tensor"),
        ({"a": _entry(shape=[3])}, b"\0" * 8, "place of tensor 'a' contradicts its shape"),
        ({"a": _entry(offsets=[4, 12])}, b"\0" * 12, "place of tensor 'a' contradicts"),
        ({"a": _entry(), "b": _entry()}, b"\0" * 8, "place of tensor 'b' contradicts"),
        ({"a": _entry(shape=[-1])}, b"\0" * 8, "tensor 'a' has no valid shape"),
        ({"a": _entry(shape=[True, 2])}, b"\0" * 8, "tensor 'a' has no valid shape"),
        ({"a": _entry(shape=[1.5])}, b"\0" * 8, "tensor 'a' has no valid shape"),
        ({"a": _entry(shape=[1] * 65)}, b"\0" * 4, "tensor 'a' has no valid shape"),
        ({"a": _entry(shape=[2**63])}, b"\0" * 8, "tensor 'a' has no valid shape"),
        ({"a": _entry(offsets=[0])}, b"\0" * 8, "tensor 'a' has no valid offsets"),
        ({"a": _entry(offsets=None)}, b"\0" * 8, "tensor 'a' has no valid offsets"),
        ({"a": _entry(dtype="F4")}, b"\0" * 8, "element type 'F4', expected one of BOOL"),
        ({"a": _entry(dtype=["F32"])}, b"\0" * 8, r"element type \['F32'\]"),
        ({"a": 3}, b"", "no description of tensor 'a'"),
        ([1], b"", "not a JSON object"),
        (b'{"a": {}, "a": {}}', b"", "not valid JSON"),
        (b"\xff\xfe", b"", "not valid JSON"),
        (b"[" * 100_000, b"", "not valid JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", b"", "not valid JSON"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, header: Any, data: bytes, message: str) -> None:
    path = _file(tmp_path / "x.safetensors", header, data)
    with pytest.raises(InvalidInput, match=message) as caught:
        read_header(path)
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)


def test_short_and_absent_files_are_refused(tmp_path: Path) -> None:
    short = tmp_path / "short.safetensors"
    for content in (b"", b"\1\0\0", struct.pack("<Q", 100) + b"{}"):
        short.write_bytes(content)
        with pytest.raises(InvalidInput, match=r"truncated: .* cannot hold its header"):
            read_header(short)
    with pytest.raises(InvalidInput, match="expected a safetensors file, got none"):
        read_header(tmp_path / "absent.safetensors")
    with pytest.raises(InvalidInput, match="expected a safetensors file, got none"):
        read_header(tmp_path)


def test_a_sparse_giant_header_is_refused_without_reading_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", 2**35))
        file.truncate(2**36)
    with pytest.raises(InvalidInput, match=f"at most {MAX_HEADER_BYTES}"):
        read_header(path)


def test_a_header_of_too_many_tensors_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    bomb = b'{"a":[' + b"[]," * 700_000 + b"[]]}"
    path = _file(tmp_path / "x.safetensors", bomb)
    with pytest.raises(InvalidInput, match="more than 200000 tensors"):
        read_header(path)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_no_damage_causes_anything_but_a_message(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    info = TensorInfo("model.layers.0.w", "float32", (2, 2))
    content = bytearray(encode_header([info], {"format": "pt"}) + bytes(16))
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    del content[data.draw(st.integers(1, len(content))) :]
    path = tmp_path_factory.mktemp("f") / "x.safetensors"
    path.write_bytes(bytes(content))
    try:
        infos = read_header(path)
    except InvalidInput:
        return
    # What is accepted at least fits the file.
    assert sum(i.nbytes for i in infos.values()) <= len(content)


def test_a_sound_header_before_holes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    size = 50 * 2**30
    raw = encode_header([TensorInfo("a", "float32", (size // 4,))], {})
    with path.open("wb") as file:
        file.write(raw)
        file.truncate(len(raw) + size)
    with pytest.raises(InvalidInput, match=f"{len(raw) + size} bytes long, of which 4096 are"):
        read_header(path)


def test_some_holes_are_sound(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    size = 32 * 2**20
    raw = encode_header([TensorInfo("a", "float32", (size // 4,))], {})
    with path.open("wb") as file:
        file.write(raw)
        file.write(b"x" * (size // 2))
        file.truncate(len(raw) + size)
    assert read_header(path)["a"].nbytes == size
