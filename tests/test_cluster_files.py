"""The files of experiments/cluster do what they say, as far as that shows without a cluster."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from evomerge import yaml12

FOLDER = Path(__file__).parents[1] / "experiments" / "cluster"
PATIENCE = 300.0

SRUN = """#!/bin/bash
echo "srun $*" >> "$LOG"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
RAY = """#!/bin/bash
echo "ray $*" >> "$LOG"
if [[ " $* " == *" --head "* ]]; then
  port=$(sed -n 's/.*--port=\\([0-9]*\\).*/\\1/p' <<< "$*")
  exec python3 -m http.server --bind 127.0.0.1 "$port"
fi
exec sleep 60
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then exec printf '127.0.0.1\\nnode-b\\nnode-c\\n'; fi
echo "scontrol $*" >> "$LOG"
"""
# Like a driver: the first SIGTERM lets it finish what is under way, then it can be continued.
EVOMERGE = """#!/bin/bash
echo "evomerge $*" >> "$LOG"
echo "token of ${#RAY_AUTH_TOKEN} characters, mode $RAY_AUTH_MODE" >> "$LOG"
trap 'sleep 0.5; echo drained >> "$LOG"; exit 75' TERM
if [[ $* == *--wait* ]]; then echo running >> "$LOG"; while true; do sleep 0.1; done; fi
# A search ends long after the nodes were asked to join; this one waits to be no faster.
until (($(grep -c '^srun' "$LOG") == 3)); do sleep 0.05; done
exit 4
"""


def free_port() -> int:
    """One that slurm.sh can come to."""
    for port in range(6379 + 2500, 6379 + 3000):
        with socket.socket() as candidate:
            candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                candidate.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")


class Job:
    """A run of slurm.sh with stand-ins for Slurm, Ray and evomerge."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._log = folder / "log"
        self._log.touch()
        self.port = free_port()
        self.number = self.port - 6379 + 3000
        stubs = {"srun": SRUN, "ray": RAY, "scontrol": SCONTROL, "evomerge": EVOMERGE}
        for name, text in stubs.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "LOG": str(self._log),
            "SLURM_JOB_ID": str(self.number),
            "SLURM_JOB_NODELIST": "node-[a-c]",
            "SLURM_GPUS_ON_NODE": "2",
        }
        command = ["bash", str(FOLDER / "slurm.sh"), *arguments]
        self.process = subprocess.Popen(command, env=environment, start_new_session=True)

    @property
    def lines(self) -> list[str]:
        return self._log.read_text().splitlines()

    def wait_for(self, line: str) -> None:
        end = time.monotonic() + PATIENCE
        while line not in self.lines:
            assert time.monotonic() < end, self.lines
            time.sleep(0.05)


def test_the_job_starts_ray_on_every_node_and_hands_the_drivers_code_on(tmp_path: Path) -> None:
    job = Job(tmp_path, "--space", "a b.yaml")
    assert job.process.wait(PATIENCE) == 4
    port = job.port
    steps = [line for line in job.lines if line.startswith("srun ")]
    places = [step.split("--nodelist=")[1].split()[0] for step in steps]
    # The head first; the others are started side by side, so that either may log first.
    assert (places[0], sorted(places[1:])) == ("127.0.0.1", ["node-b", "node-c"])
    assert f"--head --port={port}" in steps[0]
    assert all(f"--address=127.0.0.1:{port}" in step for step in steps[1:])
    said = f"evomerge search --engine ray --address 127.0.0.1:{port} --workers 6 --space a b.yaml"
    assert said in job.lines
    assert "token of 64 characters, mode token" in job.lines
    assert not [line for line in job.lines if line.startswith("scontrol")]


def test_a_signal_before_the_end_drains_the_driver_and_requeues_the_job(tmp_path: Path) -> None:
    job = Job(tmp_path, "--wait")
    job.wait_for("running")
    os.kill(job.process.pid, signal.SIGTERM)
    assert job.process.wait(PATIENCE) == 75
    assert job.lines[-2:] == ["drained", f"scontrol requeue {job.number}"]


def test_the_cluster_file_is_what_rays_launcher_reads() -> None:
    util = pytest.importorskip("ray.autoscaler._private.util")
    prepared = util.prepare_config(yaml12.load(FOLDER / "cluster.yaml"))
    util.validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]
