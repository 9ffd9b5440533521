import csv
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from addon.audit import entry
from addon.audit.export import FORMS, cef, export, ocsf
from addon.errors import Usage
from addon.model import Record

NOW = 1_790_000_000.25
anything = st.text(alphabet=st.characters(exclude_categories=()), max_size=30)

strangers = st.fixed_dictionaries(
    {
        **dict.fromkeys(("id", "method", "path", "user", "reason", "code"), anything),
        "context": st.dictionaries(anything, anything, max_size=3),
    }
).map(lambda members: Record(at=NOW, phase="intent", **members))


def row(record):
    return entry.row(entry.link(entry.record(record), seq=1, previous=entry.GENESIS)[0])


@pytest.fixture
def outcome(make):
    return row(
        make(
            at=NOW,
            phase="outcome",
            user="user:corp/ada",
            version=3,
            status=201,
            duration_ms=12.5,
            reason="invoice run",
            context={"tool": "billing"},
            trace_id="4bf9",
        )
    )


@pytest.fixture
def refusal(make):
    return row(make(at=NOW, decision="refused", code="policy_denied", policy="grant:hours", method="DELETE"))


def test_an_unknown_format_is_refused_with_those_there_are():
    with pytest.raises(Usage) as caught:
        export([], "xml")

    assert caught.value.hint == "one of: jsonl, csv, ocsf, cef"


@pytest.mark.parametrize("form", FORMS)
def test_nothing_is_read_before_it_is_needed(form, outcome):
    def records():
        yield outcome
        pytest.fail("read too far")

    text = export(records(), form)

    assert next(text)


@given(st.lists(strangers, max_size=3), st.sampled_from(sorted(FORMS)))
def test_whatever_a_stranger_wrote_the_text_is_utf_8(records, form):
    "".join(export(map(row, records), form)).encode()


@given(st.lists(strangers, max_size=3), st.sampled_from(["jsonl", "ocsf", "cef"]))
def test_whatever_a_stranger_wrote_a_record_is_one_line(records, form):
    assert len("".join(export(map(row, records), form)).splitlines()) == len(records)


@given(st.lists(strangers, max_size=3))
def test_json_lines_are_the_records(records):
    rows = [row(record) for record in records]

    assert [json.loads(line) for line in export(rows, "jsonl")] == rows


# --- csv ------------------------------------------------------------------------------------------------------------


def table(rows):
    return list(csv.reader(io.StringIO("".join(export(rows, "csv")), newline=""), strict=True))


def test_csv_begins_with_the_names_of_the_fields():
    assert "".join(export([], "csv")) == ",".join(entry.FIELDS) + "\r\n"


def test_csv_has_a_cell_for_each_field(outcome):
    names, cells = table([outcome])

    values = dict(zip(names, cells, strict=True))
    assert (values["id"], values["status"], values["duration_ms"], values["code"]) == ("req-1", "201", "12.5", "")
    assert json.loads(values["context"]) == {"tool": "billing"}


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_csv_cell_is_a_formula(start, make):
    _, cells = table([row(make(path=start + 'HYPERLINK("http://evil","x")'))])

    assert cells[entry.FIELDS.index("path")] == "'" + start + 'HYPERLINK("http://evil","x")'


@given(st.lists(strangers, max_size=3))
def test_csv_has_the_same_shape_whatever_a_stranger_wrote(records):
    cells = table(map(row, records))

    assert {len(line) for line in cells} == {len(entry.FIELDS)}
    assert len(cells) == len(records) + 1
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for line in cells for cell in line)


# --- ocsf -----------------------------------------------------------------------------------------------------------


def test_an_outcome_as_an_ocsf_event(outcome):
    assert ocsf(outcome) == {
        "category_uid": 6,
        "category_name": "Application Activity",
        "class_uid": 6003,
        "class_name": "API Activity",
        "activity_id": 1,
        "activity_name": "Create",
        "type_uid": 600301,
        "type_name": "API Activity: Create",
        "time": 1_790_000_000_250,
        "duration": 12,
        "severity_id": 1,
        "severity": "Informational",
        "status_id": 1,
        "status": "Success",
        "message": "invoice run",
        "metadata": {
            "version": "1.4.0",
            "product": {"name": "alter-egress", "vendor_name": "alter-egress"},
            "uid": "req-1:outcome",
            "correlation_uid": "req-1",
            "event_code": "outcome",
            "original_time": "2026-09-21T14:13:20.250000Z",
        },
        "actor": {"app_name": "app:billing", "user": {"name": "user:corp/ada"}},
        "api": {"operation": "POST /v1/charges", "service": {"name": "api.stripe.com"}, "request": {"uid": "req-1"}},
        "src_endpoint": {"ip": "127.0.0.1"},
        "dst_endpoint": {"hostname": "api.stripe.com", "port": 443},
        "http_request": {
            "http_method": "POST",
            "url": {"hostname": "api.stripe.com", "port": 443, "path": "/v1/charges"},
        },
        "http_response": {"code": 201},
        "resources": [{"type": "secret", "name": "stripe"}],
        "unmapped": {
            "decision": "authorized",
            "principal": "system:billing",
            "grant_id": "grant-1",
            "version": 3,
            "context": {"tool": "billing"},
            "trace_id": "4bf9",
        },
    }


def test_a_refusal_is_a_failure_of_higher_severity(refusal):
    event = ocsf(refusal)

    assert (event["status"], event["status_code"], event["severity"]) == ("Failure", "policy_denied", "Low")
    assert event["unmapped"]["policy"] == "grant:hours"
    assert "http_response" not in event


def test_an_error_of_the_upstream_is_a_failure(make):
    assert ocsf(row(make(phase="outcome", status=500)))["status"] == "Failure"


@pytest.mark.parametrize(
    ("method", "type_uid"),
    [("POST", 600301), ("GET", 600302), ("PATCH", 600303), ("DELETE", 600304), ("PROPFIND", 600399), ("", 600300)],
)
def test_the_method_says_what_kind_of_activity_it_is(method, type_uid, make):
    assert ocsf(row(make(method=method)))["type_uid"] == type_uid


def test_what_an_ocsf_event_must_have_is_there_even_if_little_is_known():
    event = ocsf(row(Record(id="r", at=NOW, phase="intent")))

    assert event["actor"] == {"app_name": "unknown"}
    assert event["api"]["operation"] == "unknown"
    assert event["src_endpoint"] == {"name": "unknown"}


# --- cef ------------------------------------------------------------------------------------------------------------


def test_a_refusal_as_cef(refusal):
    assert cef(refusal) == (
        "CEF:0|alter-egress|alter-egress|1|policy_denied|intent refused|5|"
        "rt=1790000000250 externalId=req-1 cat=intent act=refused reason=policy_denied src=127.0.0.1 "
        "sourceServiceName=app:billing dhost=api.stripe.com dpt=443 requestMethod=DELETE request=/v1/charges "
        "cs1=system:billing cs1Label=principal cs2=grant-1 cs2Label=grant_id cs3=stripe cs3Label=secret "
        "cs4=grant:hours cs4Label=policy cn2=1 cn2Label=version"
    )


def test_an_outcome_as_cef_has_status_and_duration(outcome):
    assert " cn1=201 cn1Label=status cn2=3 cn2Label=version cfp1=12.5 cfp1Label=duration_ms" in cef(outcome)
    assert ' cs5={"tool": "billing"} cs5Label=context' in cef(outcome)


def unescape(value):
    return re.sub(r"\\(.)", lambda match: {"n": "\n", "r": "\r"}.get(match[1], match[1]), value)


@given(
    st.text(alphabet=st.sampled_from("a|=\\ \n\rnré"), min_size=1, max_size=20),
    st.text(alphabet=st.sampled_from("a|=\\ \n\rnré"), min_size=1, max_size=20),
)
def test_no_value_can_break_out_of_its_place_in_cef(code, reason):
    line = cef(row(Record(id="r", at=NOW, phase="intent", code=code, reason=reason)))

    head = re.split(r"(?<!\\)(?:\\\\)*\|", line)
    parts = re.findall(r"((?:[^|\\]|\\.)*)\|", line, re.DOTALL)[:7]
    assert len(head) >= 8
    assert unescape(parts[4]) == code
    extension = line[sum(len(part) + 1 for part in parts) :]
    pairs = re.findall(r"(\w+)=((?:[^=\\]|\\.)*?)(?= \w+=|$)", extension, re.DOTALL)
    assert {key: unescape(value) for key, value in pairs} == {
        "rt": "1790000000250",
        "externalId": "r",
        "cat": "intent",
        "reason": code,
        "msg": reason,
    }
