"""The benchmark must measure what it says, or stop."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")]


def test_a_quick_run_finds_a_value_for_every_row_and_ends_what_it_started(tmp_path):
    result, table = tmp_path / "result.json", tmp_path / "table.md"
    command = [sys.executable, BENCH / "run.py", "--quick", "--json", result, "-o", table]
    done = subprocess.run(
        command, env={"TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    (found,) = json.loads(result.read_text())["rounds"]
    assert found.keys() == {"mitmdump", "alter-egress", "direct"}
    assert all(value > 0 for values in found.values() for value in values.values())
    rows = [line for line in table.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) >= 16
    assert all(re.fullmatch(r"\| [^|]+ \| [\d,.]+ \S+ \| [\d,.]+ \S+ \| [\d.]+ \|", row) for row in rows)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["result.json", "table.md"]


def test_an_answer_that_was_not_earned_is_not_measured(tmp_path):
    script = (
        "import peers, run, sys\n"
        "peers.Credentials.invent = classmethod(lambda cls: cls('right', 'AKIA', 'key'))\n"
        "original = peers.alter_egress\n"
        "wrong = peers.Credentials('wrong', 'AKIA', 'key')\n"
        "peers.alter_egress = lambda *args, **named: original(*args, **named | {'credentials': wrong})\n"
        "sys.argv[1:] = ['--quick']\n"
        "run.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=BENCH, env={"TMPDIR": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == 1
    assert "error: HTTP/1.1 401" in done.stderr
    assert "error: nothing was measured, since alter-egress did not do its job" in done.stderr
    assert "|" not in done.stdout
