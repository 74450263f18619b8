"""What the doctor finds out about memory, cores, limits and GPUs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evomerge.cli.doctor_finding import GB, Finding, note, problem
from evomerge.run.machine import Cores, Memory

_LEAST_MEMORY = 1.5 * GB
_SHORT_MEMORY = 4 * GB
_LEAST_FILES = 256
_FEW_FILES = 1024
_SWAPPED = 0.5 * GB
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_COLUMNS = 8
QUERY = (
    "--query-gpu=index,uuid,name,memory.total,memory.free,compute_cap,driver_version,"
    "mig.mode.current",
    "--format=csv,noheader,nounits",
)
"""What to ask nvidia-smi; memory comes in MiB."""
PROCESSES = ("--query-compute-apps=pid,used_memory,process_name", "--format=csv,noheader,nounits")


def memory(found: Memory) -> Finding:
    """Main memory, as far as this process may use it."""
    limit = "" if found.limit is None else f", limited by {found.limit}"
    text = f"{found.free / GB:.1f} of {found.total / GB:.1f} GB free{limit}"
    if found.free < _LEAST_MEMORY:
        return problem(
            "memory",
            text,
            f"a search needs {_LEAST_MEMORY / GB:g} GB and its models: close programs"
            f"{'' if found.limit is None else ', or raise the limit of the container'}",
        )
    if found.free < _SHORT_MEMORY:
        return note("memory", text, "enough for small models and one worker; close other programs")
    return Finding("memory", text)


def swap(used: int, total: int) -> Finding:
    """Bytes that were moved out of main memory."""
    text = f"{used / GB:.1f} of {total / GB:.1f} GB in use" if total else "none"
    if used > _SWAPPED:
        return note("swap", text, "a search that swaps hardly moves: use fewer workers")
    return Finding("swap", text)


def cores(found: Cores, machine: int) -> Finding:
    """CPU cores that this process may use, of all that there are."""
    limit = "" if found.limit is None else f", limited by {found.limit}"
    return Finding("cores", f"{found.count} of {machine} usable{limit}")


def threads(environment: Mapping[str, str], usable: int) -> Finding:
    """Variables that set how many threads a process takes; workers have their own setting."""
    given = {name: environment[name] for name in _THREADS if name in environment}
    text = ", ".join(f"{name}={value}" for name, value in given.items())
    for name, value in given.items():
        if not value.isdigit() or int(value) == 0:
            return note("threads", text, f"{name} is not a number of threads: unset it")
        if int(value) > usable:
            return note("threads", text, f"more than {usable} cores: unset {name} or lower it")
    return Finding("threads", text or "as libraries choose; a worker takes `threads:` of its file")


def open_files(limit: int) -> Finding:
    """How many files this process may have open."""
    text = f"at most {limit} per process"
    if limit < _LEAST_FILES:
        return problem("open files", text, f"workers and shards need more: ulimit -n {_FEW_FILES}")
    if limit < _FEW_FILES:
        return note("open files", text, f"few for models of many shards: ulimit -n {_FEW_FILES}")
    return Finding("open files", text)


@dataclass(frozen=True)
class Gpu:
    """One line of nvidia-smi; memory in bytes."""

    index: str
    uuid: str
    name: str
    total: float
    free: float
    capability: str
    driver: str
    mig: bool

    def named(self, visible: Sequence[str]) -> bool:
        """Whether names as in CUDA_VISIBLE_DEVICES mean this card, or perhaps a slice of it.

        Those are its index, the beginning of its uuid, or the uuid of a MIG device, which does not
        tell its card.
        """
        return any(
            name == self.index
            or (name.startswith("GPU-") and self.uuid.startswith(name))
            or (name.startswith("MIG-") and self.mig)
            for name in visible
        )


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The GPUs in the answer to `QUERY`; lines that cannot be read are left out."""
    found: list[Gpu] = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) != _COLUMNS or not parts[3].isdigit() or not parts[4].isdigit():
            continue
        index, uuid, name, *sizes, capability, driver, mig = parts
        total, free = (int(size) * 2.0**20 for size in sizes)
        found.append(Gpu(index, uuid, name, total, free, capability, driver, mig == "Enabled"))
    return tuple(found)


def gpus(
    visible: Sequence[str], found: Sequence[Gpu], processes: str, architectures: Sequence[str]
) -> Iterator[Finding]:
    """The GPUs that this process may use, what is free on them, and who holds the rest.

    Args:
        visible: their names as in CUDA_VISIBLE_DEVICES.
        found: what nvidia-smi says, which lists the others too.
        processes: nvidia-smi's answer to `PROCESSES`.
        architectures: those that torch was built for, such as "sm_90"; empty if unknown.
    """
    if not visible:
        yield Finding("gpus", "none; searches run on CPUs")
        return
    used = [gpu for gpu in found if gpu.named(visible)]
    if not used:
        yield Finding("gpus", f"{len(visible)}; nvidia-smi says nothing about them")
        return
    for gpu in used:
        mig = ", MIG (name its devices in CUDA_VISIBLE_DEVICES)" if gpu.mig else ""
        text = (
            f"{gpu.name}, {gpu.free / GB:.1f} of {gpu.total / GB:.1f} GB free, compute capability "
            f"{gpu.capability}{mig}"
        )
        if architectures and not _supported(gpu.capability, architectures):
            yield problem(
                "gpu",
                text,
                f"torch is built for {', '.join(architectures)}: install a build for this GPU, or "
                "set CUDA_VISIBLE_DEVICES= to use CPUs",
            )
        else:
            yield Finding("gpu", text)
    busy = [line.strip() for line in processes.splitlines() if line.strip()]
    if busy:
        held = "; ".join(_process(line) for line in busy)
        yield note("gpu memory", f"held by {held}", "end what is not needed before a search")


def _process(line: str) -> str:
    pid, used, name = ([part.strip() for part in line.split(",", 2)] + ["?", "?"])[:3]
    amount = f"{int(used) * 2.0**20 / GB:.1f} GB" if used.isdigit() else "memory"
    return f"process {pid} ({name}): {amount}"


def _supported(capability: str, architectures: Sequence[str]) -> bool:
    """Whether one of the builds runs on a card; an unreadable capability may be any.

    Binary code (sm_86) runs on its own major capability from its minor on. Intermediate code
    (compute_86) is translated for every card from its capability on, unless it uses what only one
    family of cards has (compute_90a).
    """
    major, _, minor = capability.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        return True
    card = (int(major), int(minor))
    for architecture in architectures:
        kind, _, number = architecture.partition("_")
        digits = number.rstrip("af")
        if len(digits) < 2 or not digits.isdigit():
            continue
        built = (int(digits[:-1]), int(digits[-1]))
        portable = kind == "compute" and digits == number
        if built <= card and (portable or built[0] == card[0]):
            return True
    return False


def torch_and_driver(
    versions: Mapping[str, str | None],
    built: tuple[str | None, str | None],
    visible: Sequence[str],
    driver: str | None,
    *,
    usable: bool,
) -> Finding:
    """Whether torch can use the GPUs.

    Args:
        versions: installed packages.
        built: the versions of CUDA and ROCm that torch was built for.
        visible: the GPUs that this process may use.
        driver: the version of the GPU driver, if known.
        usable: whether torch finds a GPU.
    """
    cuda, rocm = built
    kind = f"CUDA {cuda}" if cuda else f"ROCm {rocm}" if rocm else "CPUs only"
    text = f"{versions.get('torch')}, built for {kind}"
    if not visible or usable:
        return Finding("torch", text)
    if cuda is None and rocm is None:
        return note("torch", text, "GPUs are idle: install torch's build for CUDA")
    known = "" if driver is None else f" ({driver})"
    return problem(
        "torch",
        f"{text}, finds no GPU",
        f"the driver{known} is too old for CUDA {cuda} or does not run: update it, install torch "
        "for an older CUDA, or set CUDA_VISIBLE_DEVICES= to use CPUs",
        stops=False,
    )
