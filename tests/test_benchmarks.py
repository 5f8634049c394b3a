"""Options of the scripts in benchmarks/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_a_plot_of_earlier_figures_needs_a_file_to_write_to(tmp_path: Path) -> None:
    figures = tmp_path / "speed.json"
    figures.write_text('{"rows": []}')
    command = [sys.executable, "benchmarks/speed.py", "--plot-from", str(figures)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: --plot-from needs --plot FILE" in done.stderr
