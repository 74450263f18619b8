from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.cli import doctor, doctor_folders, doctor_machine, doctor_ray, doctor_software
from evomerge.cli.doctor_finding import Finding, Level
from evomerge.cli.doctor_machine import Gpu
from evomerge.errors import PreflightFailed
from evomerge.merge import compiler
from evomerge.run.machine import Cores, Memory
from evomerge.run.pools.ray_nodes import Node
from tests.cli.conftest import Run

GB = 10**9
LINES = (
    "numpy>=1.26",
    "torch>=2.6",
    'ray>=2.40; extra == "ray"',
    'numba>=0.61; extra == "fast"',
    'pytest>=8.0; extra == "dev"',
)
FINE = {"numpy": "1.26", "torch": "2.13.0+cpu", "ray": None, "numba": None}
TESTED = {"numpy": "2.4.6", "torch": "2.13.0", "ray": "2.60.0"}


def by_name(findings: object) -> dict[str, Finding]:
    assert isinstance(findings, tuple | list)
    return {finding.what: finding for finding in findings}


def checked(**versions: str | None) -> dict[str, Finding]:
    found = doctor_software.packages(doctor_software.declared(LINES), FINE | versions, TESTED)
    return by_name(list(found))


def test_the_report_names_versions_kernels_and_folders(
    evomerge: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "not" / "there" / "yet"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    done = evomerge("doctor", "--json")
    report = {entry["what"]: entry for entry in json.loads(done.out)["findings"]}
    assert "torch" in report["packages"]["found"]
    assert report["merge kernels"]["found"].startswith("compiled by numba")
    assert report["merge kernels"]["fix"] is None
    assert str(tmp_path) in report["cache"]["found"]
    assert report["hugging face token"]["found"] == "in HF_TOKEN"
    assert "hf_secret" not in done.out


def test_the_doctor_starts_without_torch_on_a_machine_without_gpus(evomerge: Run) -> None:
    code = "import sys; import evomerge.cli.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert evomerge("doctor").out.startswith("ok       python")


def test_a_missing_compiler_is_named_with_the_fix(
    evomerge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "find_spec", lambda _name: None)
    (line,) = [li for li in evomerge("doctor").out.splitlines() if "merge kernels" in li]
    assert line.startswith("NOTE")
    assert "pip install numba" in line


def test_a_space_is_checked_and_its_problems_stop(
    evomerge: Run, space: Callable[..., Path], tmp_path: Path
) -> None:
    done = evomerge("doctor", space())
    assert "is valid; evomerge plan" in done.out
    broken = evomerge("doctor", space("broken.yaml", space={"merge_method": "tiess"}))
    assert broken.code == 3
    assert "PROBLEM  space" in broken.out
    assert "tiess" in broken.err
    assert evomerge("doctor", tmp_path / "none.yaml").code == 3


def test_what_stops_a_search_ends_with_exit_code_3_and_every_reason(
    evomerge: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor.machine, "memory", lambda: Memory(2 * GB, GB // 2, Path("/limit")))
    monkeypatch.setattr(doctor_folders, "_writable", lambda _: False)
    done = evomerge("doctor")
    assert done.code == 3
    assert len(done.err.splitlines()) == 3
    assert "memory: 0.5 of 2.0 GB free, limited by /limit" in done.err
    assert "raise the limit of the container" in done.err
    assert "run directory" in done.err
    assert "use another --out" in done.err
    assert "set TMPDIR" in done.err
    assert "NOTE     cache" in done.out


def test_versions_against_requirements_and_tests() -> None:
    assert list(checked()) == ["packages"]
    old = checked(numpy="1.25.9", ray="2.39.0")
    assert old["numpy"].stops
    assert old["numpy"].fix == "pip install 'numpy>=1.26'"
    assert old["ray"].level is Level.PROBLEM
    assert not old["ray"].stops
    assert checked(torch=None)["torch"].found == "not installed"
    newer = checked(numpy="2.5.0", torch="2.14.0+cu128")["newer than tested"]
    assert newer.level is Level.NOTE
    assert newer.found == "numpy 2.5.0 (2.4.6), torch 2.14.0+cu128 (2.13.0)"


def test_a_source_tree_has_no_requirements_to_check() -> None:
    found = by_name(list(doctor_software.packages(None, FINE, TESTED)))
    assert found["requirements"].fix == "install it: pip install -e ."
    assert doctor_software.python((3, 10, 4)).stops
    assert not doctor_software.python((3, 11, 0)).stops


@pytest.mark.parametrize(
    ("text", "built"),
    [
        ("__all__ = []\n__version__ = '2'\ncuda: Optional[str] = '12.8'\nhip = None\n", "12.8"),
        ("cuda = None\nhip: Optional[str] = None\n", None),
        ("cuda = (\n", None),
    ],
)
def test_what_torch_was_built_for_is_read_from_its_files(
    tmp_path: Path, text: str, built: str | None
) -> None:
    (tmp_path / "version.py").write_text(text)
    assert doctor_software.torch_build(tmp_path) == (built, None)
    assert doctor_software.torch_build(tmp_path / "none") == (None, None)


def test_gpus_that_torch_cannot_use() -> None:
    def ask(cuda: str | None, visible: tuple[str, ...], *, usable: bool) -> Finding:
        built, driver = (cuda, None), "470.1"
        return doctor_machine.torch_and_driver(FINE, built, visible, driver, usable=usable)

    assert ask(None, (), usable=False).level is Level.OK
    assert ask("12.8", ("0",), usable=True).level is Level.OK
    assert "GPUs are idle" in str(ask(None, ("0",), usable=False).fix)
    old = ask("12.8", ("0",), usable=False)
    assert old.level is Level.PROBLEM
    assert "the driver (470.1) is too old for CUDA 12.8" in str(old.fix)


H200 = "0, GPU-8932f937-d72c, NVIDIA H200, 143771, 140000, 9.0, 570.1, Disabled"
SLICED = "1, GPU-11112222-d72c, A100, 1, 1, 8.0, 5, Enabled"
OLD = "2, GPU-33334444-d72c, GT 710, 2048, 2000, 3.5, 570.1, [N/A]"


def test_gpus_their_memory_and_who_holds_it() -> None:
    first, second = found = doctor_machine.parse_gpus(f"{H200}\nodd line\n{SLICED}")
    sizes = (143771 * 2.0**20, 140000 * 2.0**20)
    uuid = "GPU-8932f937-d72c"
    assert first == Gpu("0", uuid, "NVIDIA H200", *sizes, "9.0", "570.1", False)
    assert second.mig
    processes = "4711, 2048, /usr/bin/python\n12, [N/A], x"
    lines = list(doctor_machine.gpus(("0", "1"), found, processes, ["sm_80", "sm_90"]))
    assert [line.level for line in lines] == [Level.OK, Level.OK, Level.NOTE]
    assert "compute capability 9.0" in lines[0].found
    assert "MIG" in lines[1].found
    assert (
        lines[2].found == "held by process 4711 (/usr/bin/python): 2.1 GB; process 12 (x): memory"
    )


@pytest.mark.parametrize(
    ("capability", "architectures", "level"),
    [
        ("9.0", ["sm_100", "sm_120"], Level.PROBLEM),
        ("9.0", ["sm_80", "compute_80"], Level.OK),
        ("9.0", ["sm_80", "sm_100", "compute_120"], Level.PROBLEM),
        ("9.0", ["compute_90"], Level.OK),
        ("8.9", ["compute_90"], Level.PROBLEM),
        ("10.0", ["sm_90a", "compute_90a"], Level.PROBLEM),
        ("9.0", ["sm_90a"], Level.OK),
        ("12.0", ["sm_100", "sm_120"], Level.OK),
        ("12.0", ["sm_90", "compute_90"], Level.OK),
        ("8.9", ["sm_86"], Level.OK),
        ("8.0", ["sm_86"], Level.PROBLEM),
        ("[N/A]", ["sm_90"], Level.OK),
    ],
)
def test_code_for_older_gpus_is_translated_and_for_newer_ones_is_not(
    capability: str, architectures: list[str], level: Level
) -> None:
    gpu = Gpu("0", "GPU-1", "card", 2.0**30, 2.0**30, capability, "570.1", mig=False)
    (found,) = doctor_machine.gpus(("0",), (gpu,), "", architectures)
    assert found.level is level
    if level is Level.PROBLEM:
        assert ", ".join(architectures) in str(found.fix)


@pytest.mark.parametrize(
    ("visible", "cards"),
    [
        (("0",), ["NVIDIA H200"]),
        (("GPU-8932",), ["NVIDIA H200"]),
        (("2",), ["GT 710"]),
        (("0", "1"), ["NVIDIA H200", "A100"]),
        (("MIG-5a3b",), ["A100"]),
        (("10",), []),
    ],
)
def test_cards_that_the_process_may_not_use_are_left_out(
    visible: tuple[str, ...], cards: list[str]
) -> None:
    found = doctor_machine.parse_gpus(f"{H200}\n{SLICED}\n{OLD}")
    lines = list(doctor_machine.gpus(visible, found, "", ["sm_80", "sm_90"]))
    assert [line.found.partition(",")[0] for line in lines if line.what == "gpu"] == cards
    assert [line.level for line in lines if "GT 710" in line.found] == [
        Level.PROBLEM for card in cards if card == "GT 710"
    ]
    if not cards:
        assert lines[0].found == "1; nvidia-smi says nothing about them"


def test_memory_swap_and_cores() -> None:
    assert doctor_machine.memory(Memory(64 * GB, 32 * GB)).level is Level.OK
    assert doctor_machine.memory(Memory(64 * GB, 3 * GB)).level is Level.NOTE
    assert doctor_machine.memory(Memory(64 * GB, GB)).stops
    assert doctor_machine.swap(0, 0).found == "none"
    assert doctor_machine.swap(2 * GB, 8 * GB).level is Level.NOTE
    found = doctor_machine.cores(Cores(2, Path("/cpu.max")), 64).found
    assert found == "2 of 64 usable, limited by /cpu.max"


@pytest.mark.parametrize(
    ("environment", "fix"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "2"}, None),
        ({"OMP_NUM_THREADS": "64"}, "unset OMP_NUM_THREADS or lower it"),
        ({"MKL_NUM_THREADS": "all"}, "MKL_NUM_THREADS is not a number"),
        ({"OMP_NUM_THREADS": "0"}, "unset it"),
    ],
)
def test_threads(environment: dict[str, str], fix: str | None) -> None:
    found = doctor_machine.threads(environment, 4).fix
    assert (found is None) if fix is None else (fix in str(found))


def test_open_files() -> None:
    levels = [doctor_machine.open_files(limit).level for limit in (64, 512, 4096)]
    assert levels == [Level.PROBLEM, Level.NOTE, Level.OK]


def test_folders_follow_the_environment(tmp_path: Path) -> None:
    plain = doctor_folders.folders({"HOME": "/home/me"}, tmp_path, tmp_path)
    assert {f.what: str(f.path) for f in plain}["cache"] == "/home/me/.cache/evomerge"
    set_ = {"HOME": "/home/me", "HF_HOME": "/big/hf", "XDG_CACHE_HOME": "/c", "MPLCONFIGDIR": "/m"}
    found = {f.what: str(f.path) for f in doctor_folders.folders(set_, tmp_path, tmp_path)}
    assert found["hugging face cache"] == "/big/hf"
    assert found["cache"] == "/c/evomerge"
    assert found["matplotlib"] == "/m"


def test_read_only_full_and_missing_folders(tmp_path: Path) -> None:
    places = {
        f.what: f for f in doctor_folders.folders({"HOME": str(tmp_path)}, tmp_path, tmp_path)
    }

    def ask(what: str, *, writable: bool = True, free: int = 99 * GB) -> Finding:
        return doctor_folders.check(places[what], writable=lambda _: writable, free=lambda _: free)

    assert ask("cache").level is Level.OK
    read_only = ask("cache", writable=False)
    assert read_only.level is Level.NOTE
    assert "set EVOMERGE_CACHE" in str(read_only.fix)
    assert ask("hugging face cache", writable=False).fix is not None
    assert ask("run directory", writable=False).stops
    full = ask("run directory", free=1000)
    assert full.level is Level.NOTE
    assert str(full.fix).startswith("make room")
    nowhere = doctor_folders.Folder("cache", None, 0.0, "set EVOMERGE_CACHE")
    assert doctor_folders.check(nowhere).found == "no home folder"


def test_offline_and_token_state(tmp_path: Path) -> None:
    network, token = doctor_folders.offline({"HF_HUB_OFFLINE": "1"}, tmp_path / "token")
    assert network.found == "offline (HF_HUB_OFFLINE)"
    assert token.found.startswith("none")
    (tmp_path / "token").write_text("hf_secret")
    _, token = doctor_folders.offline({}, tmp_path / "token")
    assert token.found == f"in {tmp_path / 'token'}"


def test_ray_and_its_cluster() -> None:
    assert doctor_ray.ray(None, None).level is Level.OK
    assert doctor_ray.ray(None, "head:6379").stops

    def refused(address: str) -> tuple[Node, ...]:
        raise PreflightFailed(f"no Ray cluster answers at {address}; start one with 'ray start'")

    (gone,) = doctor_ray.cluster("10.0.0.1:6379", refused)
    assert gone.stops
    assert gone.fix == "start one with 'ray start'"
    nodes = (Node("a", 8, 1, 30 * GB), Node("b", 4, 0, 10 * GB))
    total, first, second = doctor_ray.cluster("10.0.0.1:6379", lambda _: nodes)
    assert total.found == "10.0.0.1:6379: 2 nodes, 12 CPUs, 1 GPUs"
    assert first.found == "a: 8 CPUs, 1 GPUs, 30.0 GB"
    assert second.what == "node"


def test_a_dead_address_is_found_out_at_once(evomerge: Run) -> None:
    done = evomerge("doctor", "--address", "127.0.0.1:1")
    assert done.code == 3
    assert "no Ray cluster answers at 127.0.0.1:1" in done.err


def test_ray_tokens_shared_memory_sockets_and_statistics(tmp_path: Path) -> None:
    def token(
        environment: dict[str, str], *, writable: bool = True, address: str | None = None
    ) -> Finding:
        return doctor_ray.token(environment, tmp_path, writable=writable, address=address)

    assert token({}).found.startswith("none yet")
    assert "RAY_AUTH_TOKEN_PATH" in str(token({}, writable=False).fix)
    assert "copy the head's" in str(token({}, address="head:6379").fix)
    assert token({"RAY_AUTH_TOKEN": "secret"}).found == "in RAY_AUTH_TOKEN"
    assert token({"RAY_AUTH_MODE": "disabled"}).level is Level.NOTE
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")
    assert token({}, address="head:6379").found == str(tmp_path / ".ray" / "auth_token")

    missing = doctor_ray.shared_memory(tmp_path / "shm", lambda _: GB)
    assert "is missing" in missing.found
    small = doctor_ray.shared_memory(tmp_path, lambda _: 64 << 20)
    assert "--shm-size" in str(small.fix)
    assert doctor_ray.shared_memory(tmp_path, lambda _: GB).level is Level.OK

    assert doctor_ray.socket_path({}, Path("/tmp")).level is Level.OK
    deep = doctor_ray.socket_path({"RAY_TMPDIR": "/tmp/" + "x" * 50}, Path("/tmp"))
    assert deep.fix == "Ray cannot start here: set RAY_TMPDIR=/tmp"
    assert doctor_ray.usage_statistics({}).level is Level.OK
    assert doctor_ray.usage_statistics({"RAY_USAGE_STATS_ENABLED": "1"}).level is Level.NOTE


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--address 127.0.0.1:{port}" in str(doctor_ray.head_port(port).fix)
    assert doctor_ray.head_port(port).level is Level.OK
