from __future__ import annotations

import json
from pathlib import Path

import pytest

from evomerge.cli import doctor
from evomerge.merge import choose


def _report(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str | None]]:
    doctor.doctor_command(as_json=True)
    findings = json.loads(capsys.readouterr().out)["findings"]
    return {finding["what"]: finding for finding in findings}


def test_the_report_names_versions_kernels_and_cache(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVOMERGE_CACHE", str(tmp_path / "not" / "there" / "yet"))
    report = _report(capsys)
    assert "torch" in str(report["packages"]["found"])
    assert str(report["merge kernels"]["found"]).startswith("compiled by numba")
    assert report["merge kernels"]["fix"] is None
    assert str(tmp_path) in str(report["cache"]["found"])


def test_a_missing_compiler_is_named_with_the_fix(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "find_spec", lambda _name: None)
    assert "pip install numba" in str(_report(capsys)["merge kernels"]["fix"])
    doctor.doctor_command(as_json=False)
    (line,) = [li for li in capsys.readouterr().out.splitlines() if "merge kernels" in li]
    assert line.startswith("NOTE")
