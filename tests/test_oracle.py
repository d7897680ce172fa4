"""The oracle can be used; where not, one test says so and those that need it are left out.

Run alone: ``python -m pytest tests/test_oracle.py -m ""``.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import oracle

REQUIRED = "ORACLE_REQUIRED"
ROOT = Path(__file__).parents[1]


def test_transformers_and_peft_can_be_compared_with() -> None:
    reason = oracle.refusal()
    if reason is not None and not os.environ.get(REQUIRED):
        pytest.skip(reason)
    assert reason is None, reason


@pytest.mark.oracle
def test_a_peft_that_transformers_refuses_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.integrations.peft.MIN_PEFT_VERSION", "99")
    assert ">= 99" in str(oracle.refusal.__wrapped__())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "required", "closing"),
    [("transformers", "", "1 skipped"), ("peft", "1", "1 failed")],
)
def test_a_broken_import_is_one_skipped_test_and_a_failure_where_the_oracle_is_required(
    package: str, required: str, closing: str, tmp_path: Path
) -> None:
    (tmp_path / f"{package}.py").write_text("raise ImportError('broken on purpose')\n")
    files = ["tests/test_oracle.py", "tests/test_against_hf.py", "tests/test_sampling.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *files],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path), REQUIRED: required},
        capture_output=True,
        text=True,
    )
    assert closing in done.stdout.splitlines()[-1], done.stdout
    assert "ImportError: broken on purpose" in done.stdout
    assert ("failed" in done.stdout.splitlines()[-1]) == bool(required)
    assert "error" not in done.stdout.splitlines()[-1]
