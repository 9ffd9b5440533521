"""gRPC, by the real client and the real server: every kind of call, its metadata, its status and its trailers."""

import queue
import sys
import uuid
from pathlib import Path

import grpc
import pytest

from tests.e2e.product import routes
from tests.e2e.rpc import Service
from tests.e2e.stage import VALUES, Stage

HOST = "rpc.example.test"
TOKEN = VALUES["bearer"]["token"]
STARS = "*" * len(TOKEN)
PROGRAM = Path(__file__).with_name("programs") / "with_grpc.py"


@pytest.fixture(scope="module")
def _service(authority):
    with Service(HOST, authority=authority, key=TOKEN) as service:
        yield service


@pytest.fixture
def service(_service):
    """The service, which has seen nothing yet."""
    _service.calls.clear()
    _service.cancelled.clear()
    return _service


@pytest.fixture(scope="module")
def stage(engine, seed, tmp_path_factory, _service, authority_file):
    """A proxy that leads to the service."""
    home = tmp_path_factory.mktemp(f"grpc-{engine}") / "home"
    with Stage.open(seed, home, "--upstream-ca", authority_file, *routes(_service), engine=engine) as stage:
        stage.vaultctl.secret("rpc", "--kind", "bearer", "--host", HOST, token=TOKEN)
        yield stage


@pytest.fixture(scope="module")
def grant(stage):
    return stage.vaultctl.grant("rpc", "system:billing")


@pytest.fixture
def channel(stage):
    """A channel of `billing`."""
    credentials = grpc.ssl_channel_credentials(stage.proxy.ca.read_bytes())
    options = [("grpc.http_proxy", stage.proxy.url(*stage.caller))]
    with grpc.secure_channel(f"{HOST}:443", credentials, options=options) as channel:
        yield channel


@pytest.fixture(params=["header", "placeholder"])
def tag(request, grant):
    """The metadata of a call that is to be authenticated."""
    return [("x-alter-grant", grant) if request.param == "header" else ("authorization", f"Bearer alter_grant_{grant}")]


@pytest.fixture(autouse=True)
def _nothing_of_ours_goes_out(service):
    yield
    names = {name for call in service.calls for name, _ in call}
    assert not [name for name in names if name.startswith(("x-alter", "proxy-"))]


def test_a_unary_call_with_metadata_and_trailers(channel, tag, service):
    answer, call = channel.unary_unary("/test/Unary").with_call(b"hello", metadata=[*tag, ("x-mine", "1")], timeout=10)
    assert answer == f"<hello{STARS}>".encode()
    assert dict(call.initial_metadata())["x-first"] == "1"
    trailers = dict(call.trailing_metadata())
    assert (trailers["x-last"], trailers["x-key"]) == ("2", STARS)
    (metadata,) = map(dict, service.calls)
    assert (metadata["authorization"], metadata["x-mine"]) == (f"Bearer {TOKEN}", "1")


def test_messages_of_a_server_come_as_a_stream(channel, tag):
    call = channel.unary_stream("/test/Down")(b"200", metadata=tag, timeout=20)
    assert list(call) == [b"%d " % number * 1000 for number in range(200)]
    assert dict(call.trailing_metadata())["x-key"] == STARS


def test_messages_of_a_client_go_as_a_stream(channel, tag):
    pieces = (b"x" * 10_000 for _ in range(200))
    assert channel.stream_unary("/test/Up")(pieces, metadata=tag, timeout=20) == b"2000000"


def test_both_speak_in_turn(channel, tag):
    """Each message waits for the answer to the one before, so none can be held back until there are more."""
    said = queue.Queue()
    call = channel.stream_stream("/test/Both")(iter(said.get, None), metadata=tag, timeout=20)
    for number in range(20):
        said.put(f"message {number}".encode())
        assert next(call) == f"message {number}"[::-1].encode()
    said.put(None)
    assert list(call) == []
    assert call.code() is grpc.StatusCode.OK


def test_a_status_of_the_server_comes_back_without_the_key(channel, tag):
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/test/Unary")(b"fail", metadata=tag, timeout=10)
    assert (failed.value.code(), failed.value.details()) == (grpc.StatusCode.FAILED_PRECONDITION, f"not with {STARS}")


def test_a_call_that_is_cancelled_is_cancelled_at_the_server_and_recorded(stage, channel, tag, service):
    reason = str(uuid.uuid4())
    call = channel.unary_stream("/test/Down")(b"0", metadata=[*tag, ("x-alter-reason", reason)], timeout=20)
    assert next(call) == b"first"
    call.cancel()
    assert service.cancelled.wait(10)
    (intent,) = [row for row in stage.records() if (row["phase"], row["reason"]) == ("intent", reason)]
    outcome = stage.audit(intent["id"])
    assert (outcome["decision"], outcome["status"], outcome["code"]) == ("authorized", 200, "client_gone")


def test_many_calls_on_one_channel_are_each_judged_alone(channel, tag, service):
    method = channel.unary_unary("/test/Unary")
    good = [method.future(b"%d" % number, metadata=tag, timeout=20) for number in range(20)]
    bad = method.future(b"none", metadata=[("x-alter-grant", "0" * 36)], timeout=20)
    assert [call.result() for call in good] == [f"<{number}{STARS}>".encode() for number in range(20)]
    assert bad.code() is grpc.StatusCode.PERMISSION_DENIED
    assert len(service.calls) == 20


def test_a_call_without_a_grant_goes_out_as_it_is(channel, service):
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/test/Unary")(b"hello", metadata=[("authorization", "Bearer its-own")], timeout=10)
    assert failed.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert dict(service.calls[0])["authorization"] == "Bearer its-own"


def test_an_unchanged_program_by_vaultctl_run(stage, grant, service):
    command = ["run", "--grant", grant, "--proxy", stage.proxy.address, "--", sys.executable, PROGRAM, HOST]
    done = stage.vaultctl(*command)
    assert (done.returncode, done.stdout) == (0, f"b'<hello{STARS}>'\n"), done.stderr
    assert TOKEN not in done.stdout + done.stderr
