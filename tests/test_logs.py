import json
import logging

import pytest

from addon import logs


@pytest.fixture(autouse=True)
def restored():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def test_a_json_line_tells_the_type_of_an_exception_and_never_its_text(capsys):
    logs.configure("json")
    try:
        int("sk_live_canary")
    except ValueError:
        logging.getLogger("elsewhere").exception("it broke\nbadly")
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["level"], said["logger"], said["message"], said["error"]) == ("error", "elsewhere", "it broke\nbadly", "ValueError")  # fmt: skip
    assert said["at"].endswith("Z")
    assert "canary" not in line


def test_text_is_the_message_alone(capsys):
    logs.configure("text")
    logging.getLogger("alter-egress").error("worker %d ended", 1)
    logging.getLogger("alter-egress").info("nobody asked")
    assert capsys.readouterr().err == "worker 1 ended\n"
