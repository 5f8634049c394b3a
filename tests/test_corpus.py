"""Real exports of many libraries: every verdict, and what was found, is as stored."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CORPUS, EXPECTED = TESTS / "corpus.tar.xz", TESTS / "corpus.json"


def test_verdicts_of_the_corpus_are_as_stored() -> None:
    command = [sys.executable, "benchmarks/corpus.py", str(CORPUS), "--expect", str(EXPECTED)]
    done = subprocess.run(command, cwd=TESTS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "116 converted, 10 refused" in done.stdout


def test_nothing_stored_is_wrong() -> None:
    verdicts = [verdict for verdict, _ in json.loads(EXPECTED.read_text()).values()]
    assert len(verdicts) == 126
    assert set(verdicts) == {"converted", "refused"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("apot_mlp_dynamo", "not evenly spaced"),
        ("apot_mlp_legacy", "not evenly spaced"),
        ("gelu_vgg_dynamo", "smooth"),
        ("hardswish_leaky_vgg_legacy", "smooth"),
        ("leaf_unclipped_round_dynamo", "without a clip"),
        ("noiseadaptor_train_dynamo", "stochastic"),
        ("noiseadaptor_train_legacy", "stochastic"),
        ("qcfs_vgg_legacy_preserve_train", "training mode"),
        ("qcfs_vgg_legacy_trainmode", "training mode"),
        ("symbolicop_mlp_legacy", "custom operator"),
    ],
)
def test_refusals_give_the_right_reason(name: str, reason: str) -> None:
    table = (TESTS.parent / "docs" / "corpus.md").read_text()
    (row,) = [line for line in table.splitlines() if line.startswith(f"| {name} |")]
    assert "| refused |" in row
    assert reason in row
