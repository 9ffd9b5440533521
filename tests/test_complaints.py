"""What is wrong is told, once; what an exception says is not."""

import logging

from addon import complaints


def test_a_flood_of_one_cause_is_one_line_and_its_message_is_not_told(caplog, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(complaints.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(complaints, "_last", {})
    with caplog.at_level(logging.ERROR):
        for _ in range(500):
            complaints.complain("it broke", ValueError("sk_live_canary"))
        complaints.complain("it broke", KeyError("x"))
        clock[0] += 11
        complaints.complain("it broke", ValueError())
    assert caplog.messages == ["it broke: ValueError", "it broke: KeyError", "it broke: ValueError (499 more since)"]
