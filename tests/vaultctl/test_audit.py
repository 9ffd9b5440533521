import csv
import io
import json
import os
import select
import signal
import stat
import subprocess
import sys
import time

import pytest

from addon.audit.writer import Writer
from addon.model import Record

NOW = 1_800_000_000.0


def record(number, **changes):
    fields = {
        "id": f"request-{number}",
        "at": NOW + number,
        "phase": "outcome",
        "decision": "authorized",
        "caller": "app:billing",
        "principal": "system:billing",
        "grant_id": "grant-1",
        "secret": "stripe",
        "version": 1,
        "host": "api.stripe.com",
        "port": 443,
        "method": "GET",
        "path": "/v1/charges",
        "status": 200,
    }
    return Record(**(fields | changes))


@pytest.fixture
def written(home):
    writer = Writer(home / "audit", clock=lambda: NOW, durability="process")
    writer.post(record(1, phase="intent", status=None))
    writer.post(record(1, duration_ms=12.5))
    writer.post(record(2, decision="refused", code="policy_denied", policy="grant.methods", status=None))
    writer.post(record(3, grant_id="grant-2", principal="agent:helper", path="/v1/\x1b[2J", context={"tool": "x"}))
    writer.close()
    return home


def ids(ran):
    return [each["id"] for each in ran.json]


def test_list_shows_the_newest_last_and_all_members(cli, written):
    ran = cli("audit", "list", "--json")
    assert ids(ran) == ["request-1", "request-1", "request-2", "request-3"]
    assert set(ran.json[0]) >= {
        "id", "at", "phase", "caller", "user", "principal", "grant_id", "secret", "version", "host", "method", "path",
        "decision", "code", "status", "duration_ms", "reason", "context",
    }  # fmt: skip


def test_list_chooses(cli, written, monkeypatch):
    assert ids(cli("audit", "list", "--grant", "grant-2", "--json")) == ["request-3"]
    assert ids(cli("audit", "list", "--principal", "agent:helper", "--json")) == ["request-3"]
    assert ids(cli("audit", "list", "--code", "policy_denied", "--json")) == ["request-2"]
    assert ids(cli("audit", "list", "--limit", "1", "--json")) == ["request-3"]
    monkeypatch.setattr(time, "time", lambda: NOW + 3)
    assert ids(cli("audit", "list", "--since", "1s", "--json")) == ["request-2", "request-3"]


def test_a_path_cannot_drive_the_terminal(cli, written):
    for args in [("list",), ("tail",), ("show", "request-3")]:
        ran = cli("audit", *args)
        assert "\x1b" not in ran.out
        assert "/v1/" in ran.out


def test_show_gives_everything_about_one_request(cli, written):
    assert [each["phase"] for each in cli("audit", "show", "request-1", "--json").json] == ["intent", "outcome"]
    assert "tool: x" in cli("audit", "show", "request-3").out
    assert cli("audit", "show", "request-9").code == 3


def test_nothing_recorded_is_an_empty_list_and_no_error(cli):
    for verb in ("list", "tail", "export"):
        ran = cli("audit", verb, "--json")
        assert (ran.code, ran.json) == (0, [])
    assert cli("audit", "verify", "--json").json == {"ok": True, "records": 0, "first_bad": None}


def test_verify_counts_what_is_whole(cli, written):
    ran = cli("audit", "verify", "--json")
    assert (ran.code, ran.json) == (0, {"ok": True, "records": 4, "first_bad": None})


def test_verify_names_the_first_bad_line_with_exit_code_6(cli, written):
    (segment,) = (written / "audit").glob("*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[3] = lines[3].replace(b"policy_denied", b"policy_denieD")
    segment.write_bytes(b"".join(lines))
    ran = cli("audit", "verify", "--json")
    assert ran.code == 6
    assert ran.json["ok"] is False
    assert ran.json["records"] == 2
    assert ran.json["first_bad"]["file"] == segment.name
    assert ran.json["first_bad"]["line"] == 4
    text = cli("audit", "verify")
    assert (text.code, text.out) == (6, "")
    assert f"{segment.name} line 4" in text.error


def test_export_writes_a_line_for_each_record(cli, written):
    ran = cli("audit", "export")
    assert [json.loads(line)["id"] for line in ran.out.splitlines()] == [
        "request-1",
        "request-1",
        "request-2",
        "request-3",
    ]
    rows = list(csv.DictReader(io.StringIO(cli("audit", "export", "--format", "csv").out)))
    assert [row["status"] for row in rows] == ["", "200", "", "200"]


@pytest.mark.parametrize("form", ["jsonl", "csv", "ocsf", "cef"])
def test_export_to_a_file_makes_a_new_private_one(cli, written, tmp_path, form):
    path = tmp_path / "out"
    ran = cli("audit", "export", "--format", form, "-o", str(path), "--json")
    assert (ran.code, ran.json) == (0, {"file": str(path)})
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == cli("audit", "export", "--format", form).out.replace("\r\n", "\n")
    assert cli("audit", "export", "-o", str(path)).code == 7


def test_export_as_one_document_is_an_array(cli, written):
    assert len(cli("audit", "export", "--json").json) == 4
    assert cli("audit", "export", "--json", "--format", "csv").code == 2


def test_an_export_that_fails_leaves_no_file(cli, written, tmp_path, monkeypatch):
    def broken(*_):
        yield "half"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("addon.audit.export.export", broken)
    ran = cli("audit", "export", "-o", str(tmp_path / "out"))
    assert ran.code == 1
    assert not (tmp_path / "out").exists()


def test_tail_gives_the_last_ten(cli, home):
    writer = Writer(home / "audit", clock=lambda: NOW, durability="process")
    for number in range(15):
        writer.post(record(number))
    writer.close()
    assert ids(cli("audit", "tail", "--json")) == [f"request-{number}" for number in range(5, 15)]


def test_tail_goes_on_until_it_is_interrupted(cli, written):
    command = [sys.executable, "-m", "vaultctl", "audit", "tail", "-f", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as running:
        try:
            seen = lines(running.stdout, 4)
            writer = Writer(written / "audit", clock=lambda: NOW + 10, durability="process")
            writer.post(record(4))
            writer.close()
            seen += lines(running.stdout, 1)
            running.send_signal(signal.SIGINT)
            assert running.wait(20) == 0
            assert running.stderr.read() == b""
        finally:
            running.kill()
    assert json.loads(seen.splitlines()[-1])["id"] == "request-4"


def lines(stream, count):
    """The next so many lines, or what came of them in twenty seconds."""
    data, deadline = b"", time.monotonic() + 20
    while data.count(b"\n") < count and select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
        data += os.read(stream.fileno(), 65536)
    assert data.count(b"\n") == count
    return data


# ── explain ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def log(home):
    """`log(number, …)` writes one more record."""
    writer = Writer(home / "audit", clock=lambda: NOW, durability="process")
    yield (
        lambda number, **changes: (
            writer.post(record(number, **({"client_ip": "127.0.0.1"} | changes))) or writer.close()
        )
    )
    writer.close()


def test_explain_walks_through_what_was_let_through(cli, stripe, log):
    log(7, grant_id=stripe)
    ran = cli("audit", "explain", "request-7", "--json")
    assert (ran.code, ran.json["decision"], ran.json["recorded"]["decision"]) == (0, "authorized", "authorized")
    assert [step["name"] for step in ran.json["steps"]][:3] == ["tag", "caller", "user"]
    assert ran.err == ""


def test_explain_says_what_a_policy_compared_and_what_would_mend_it(cli, stripe, log):
    assert cli("policy", "set", "secret:stripe", "--method", "POST", "--method", "PUT").code == 0
    log(8, grant_id=stripe, decision="refused", code="policy_denied", policy="secret.methods", status=403)
    ran = cli("audit", "explain", "request-8", "--json")
    assert (ran.code, ran.json["code"], ran.json["policy"]) == (4, "policy_denied", "secret.methods")
    last = ran.json["steps"][-1]
    assert (last["detail"], last["remedy"]) == ("secret.methods", "it passes with methods: POST, PUT")
    assert "GET is not one of" in last["compared"]
    assert "mend: it passes with methods: POST, PUT" in cli("audit", "explain", "request-8").out


def test_explain_says_that_a_body_is_not_recorded(cli, stripe, log):
    assert cli("policy", "set", "secret:stripe", "--json-member", "n <= 5").code == 0
    log(8, grant_id=stripe, decision="refused", code="policy_denied", policy="secret.json", status=403)
    ran = cli("audit", "explain", "request-8")
    assert (ran.code, "the body is not recorded" in ran.err) == (4, True)


def test_explain_judges_at_the_time_of_the_request(cli, stripe, log):
    assert cli("policy", "set", "vault", "--expires", str(int(NOW) + 5)).code == 0
    log(4, grant_id=stripe)
    assert cli("audit", "explain", "request-4").code == 0


def test_explain_tells_a_limit_as_it_was_counted_then(cli, stripe, log, home):
    assert cli("policy", "set", "vault", "--rate", "1/minute").code == 0
    log(9, grant_id=stripe, decision="refused", code="rate_limited", policy="vault.rate", status=429)
    ran = cli("audit", "explain", "request-9", "--json")
    assert (ran.code, ran.json["code"], ran.err) == (4, "rate_limited", "")
    assert (ran.json["steps"][-1]["name"], ran.json["steps"][-1]["detail"]) == ("limits", "vault.rate")
    assert not (home / "limits.db").exists()


def test_explain_tells_what_happened_after_the_decision(cli, stripe, log):
    log(5, grant_id=stripe, decision="refused", code="upstream_unverified", status=502)
    ran = cli("audit", "explain", "request-5", "--json")
    assert (ran.code, ran.json["code"], ran.json["steps"][-1]["name"]) == (4, "upstream_unverified", "record")


def test_explain_says_when_it_comes_out_differently_now(cli, stripe, log):
    log(6, grant_id=stripe)
    assert cli("grant", "revoke", stripe).code == 0
    ran = cli("audit", "explain", "request-6")
    assert ran.code == 0
    assert "grant_revoked" in ran.out
    assert "recorded was authorized: the vault has changed since" in ran.err


def test_explain_of_a_grant_that_was_not_the_callers_says_no_more_than_the_record(cli, stripe, log):
    log(3, grant_id="", caller="", secret="", version=None, decision="refused", code="grant_unavailable", status=403)
    ran = cli("audit", "explain", "request-3", "--json")
    assert (ran.code, len(ran.json["steps"]), ran.json["code"]) == (4, 1, "grant_unavailable")
    log2 = cli("audit", "explain", "request-99")
    assert log2.code == 3


def test_a_log_that_was_cut_is_seen_against_a_head_that_was_kept(cli, written, tmp_path):
    kept = tmp_path / "heads.json"
    kept.write_text(cli("audit", "head", "--json").out)
    assert cli("audit", "verify", "--against", str(kept), "--json").json["ok"]
    (segment,) = (written / "audit").glob("*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join(lines[:-1]))
    assert cli("audit", "verify").code == 0, "the chain alone does not show it"
    ran = cli("audit", "verify", "--against", str(kept), "--json")
    assert ran.code == 6
    assert ran.json["first_bad"]["problem"] == "a line that was noted is missing"


def test_head_names_the_last_line_of_each_stream(cli, written):
    (segment,) = (written / "audit").glob("*.jsonl")
    last = json.loads(segment.read_bytes().splitlines()[-1])
    (head,) = cli("audit", "head", "--json").json
    assert set(head) == {"stream", "slot", "seq", "hash"}
    assert (head["seq"], head["hash"]) == (last["seq"], last["hash"])
    assert head["hash"] in cli("audit", "head").out


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        "nonsense",
        '[{"stream": "x"}]',
        '[{"stream": 1, "slot": 0, "seq": 0, "hash": ""}]',
        "[" * 100_000,
    ],
)
def test_a_file_without_heads_proves_nothing(cli, written, tmp_path, text):
    """Not even with a log that is whole."""
    kept = tmp_path / "heads.json"
    kept.write_text(text)
    assert cli("audit", "verify", "--against", str(kept)).code == 2
    assert cli("audit", "verify", "--against", str(tmp_path / "none")).code == 3
