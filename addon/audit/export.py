"""
Records for other programs: `export` gives text in pieces that make one document when joined.

    jsonl  one JSON object a line
    csv    RFC 4180, a header line first; no cell can be taken for a formula
    ocsf   one event of class API Activity (6003), OCSF 1.4.0, a line
    cef    one event in Common Event Format, version 0, a line

Every piece can be encoded as UTF-8, whatever a stranger put into a path.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator

from addon.audit import entry
from addon.audit.entry import FIELDS, Row
from addon.errors import Usage

_PRODUCT = "alter-egress"
_OCSF_VERSION = "1.4.0"

_ACTIVITIES = {
    "": (0, "Unknown"),
    "POST": (1, "Create"),
    "GET": (2, "Read"),
    "HEAD": (2, "Read"),
    "OPTIONS": (2, "Read"),
    "PUT": (3, "Update"),
    "PATCH": (3, "Update"),
    "DELETE": (4, "Delete"),
}
_OCSF_SEVERITIES = {"refused": (2, "Low"), "fault": (3, "Medium")}
_CEF_SEVERITIES = {"refused": 5, "fault": 7}

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export(records: Iterable[Row], form: str) -> Iterator[str]:
    """The records in one of FORMS. Raises Usage for any other."""
    if form not in FORMS:
        raise Usage(f"unknown export format {form!r}", hint=f"one of: {', '.join(FORMS)}")
    return FORMS[form](records)


def ocsf(record: Row) -> dict[str, object]:
    """
    The record as an OCSF event (https://schema.ocsf.io/1.4.0/classes/api_activity).

    Intent and outcome of a request share `metadata.correlation_uid`. What the class has no place for is in `unmapped`.
    """
    activity, activity_name = _ACTIVITIES.get(_text(record["method"]), (99, "Other"))
    severity, severity_name = _OCSF_SEVERITIES.get(_text(record["decision"]), (1, "Informational"))
    failed = severity > 1 or _number(record["status"]) >= 400
    event = {
        "category_uid": 6,
        "category_name": "Application Activity",
        "class_uid": 6003,
        "class_name": "API Activity",
        "activity_id": activity,
        "activity_name": activity_name,
        "type_uid": 600300 + activity,
        "type_name": f"API Activity: {activity_name}",
        "time": _milliseconds(record),
        "duration": None if record["duration_ms"] is None else round(_number(record["duration_ms"])),
        "severity_id": severity,
        "severity": severity_name,
        "status_id": 2 if failed else 1,
        "status": "Failure" if failed else "Success",
        "status_code": record["code"],
        "message": record["reason"],
        "metadata": {
            "version": _OCSF_VERSION,
            "product": {"name": _PRODUCT, "vendor_name": _PRODUCT},
            "uid": f"{record['id']}:{record['phase']}",
            "correlation_uid": record["id"],
            "event_code": record["phase"],
            "original_time": record["at"],
        },
        "actor": {"app_name": record["caller"] or "unknown", "user": {"name": record["user"]}},
        "api": {
            "operation": f"{record['method']} {record['path']}".strip() or "unknown",
            "service": {"name": record["host"]},
            "request": {"uid": record["id"]},
        },
        "src_endpoint": {"ip": record["client_ip"]} if record["client_ip"] else {"name": "unknown"},
        "dst_endpoint": {"hostname": record["host"], "port": record["port"]},
        "http_request": {
            "http_method": record["method"],
            "url": {"hostname": record["host"], "port": record["port"], "path": record["path"]},
        },
        "http_response": {"code": record["status"]},
        "resources": [{"type": "secret", "name": record["secret"]}] if record["secret"] else [],
        "unmapped": {
            name: record[name]
            for name in (
                "decision",
                "principal",
                "grant_id",
                "delegation_id",
                "version",
                "policy",
                "context",
                "trace_id",
            )
        },
    }
    return _without_empty(event)


def cef(record: Row) -> str:
    """The record as one CEF line, newline not included. Signature id is the code, or the decision where there is none."""
    signature = _text(record["code"]) or _text(record["decision"])
    severity = _CEF_SEVERITIES.get(_text(record["decision"]), 1)
    head = [_PRODUCT, _PRODUCT, str(entry.FORMAT), signature, f"{record['phase']} {record['decision']}", str(severity)]
    labelled = {
        "cs1": "principal",
        "cs2": "grant_id",
        "cs3": "secret",
        "cs4": "policy",
        "cs5": "context",
        "cs6": "trace_id",
        "cn1": "status",
        "cn2": "version",
        "cfp1": "duration_ms",
    }
    extension = {
        "rt": _milliseconds(record),
        "externalId": record["id"],
        "cat": record["phase"],
        "act": record["decision"],
        "reason": record["code"],
        "msg": record["reason"],
        "src": record["client_ip"],
        "suser": record["user"],
        "sourceServiceName": record["caller"],
        "dhost": record["host"],
        "dpt": record["port"],
        "requestMethod": record["method"],
        "request": record["path"],
    }
    for key, name in labelled.items():
        if record[name] not in (None, "", {}):
            extension |= {key: record[name], f"{key}Label": name}
    pairs = (f"{key}={_cef(value, '=')}" for key, value in extension.items() if value not in (None, ""))
    return "|".join(["CEF:0", *(_cef(part, "|") for part in head), " ".join(pairs)])


def _jsonl(records: Iterable[Row]) -> Iterator[str]:
    return (json.dumps(record) + "\n" for record in records)


def _csv(records: Iterable[Row]) -> Iterator[str]:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    for cells in _table(records):
        writer.writerow(cells)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()


def _table(records: Iterable[Row]) -> Iterator[list[str]]:
    yield list(FIELDS)
    for record in records:
        yield [_cell(record[name]) for name in FIELDS]


def _cell(value: object) -> str:
    text = _text(value)
    text = f"'{text}" if text.startswith(_FORMULA) else text
    return text.encode("utf-8", "replace").decode()


def _ocsf(records: Iterable[Row]) -> Iterator[str]:
    return (json.dumps(ocsf(record)) + "\n" for record in records)


def _cef_lines(records: Iterable[Row]) -> Iterator[str]:
    return (cef(record) + "\n" for record in records)


def _cef(value: object, reserved: str) -> str:
    text = _text(value).replace("\\", "\\\\").replace(reserved, "\\" + reserved)
    text = text.replace("\r", "\\r").replace("\n", "\\n")
    return "".join(each if each.isprintable() else "?" for each in text)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return json.dumps(value) if value else ""
    return "" if value is None else str(value)


def _number(value: object) -> float:
    return value if isinstance(value, int | float) else 0


def _milliseconds(record: Row) -> int:
    return round(entry.seconds(_text(record["at"])) * 1000)


def _without_empty(members: dict[str, object]) -> dict[str, object]:
    """OCSF knows no null: what is not known is not there."""
    kept = {name: _without_empty(value) if isinstance(value, dict) else value for name, value in members.items()}
    return {name: value for name, value in kept.items() if value not in (None, "", {}, [])}


FORMS: dict[str, Callable[[Iterable[Row]], Iterator[str]]] = {
    "jsonl": _jsonl,
    "csv": _csv,
    "ocsf": _ocsf,
    "cef": _cef_lines,
}
"""What `export` can write."""
