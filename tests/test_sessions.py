"""Sessions of roles: asked for once, renewed ahead of their end, and nothing at all where there is none."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from addon.binding import Binding, Role
from addon.errors import Fault
from addon.model import Values
from addon.sessions import AHEAD, MARGIN, PAUSE, Sessions
from addon.vault.seal import Sealed

ROLE = Role(arn="arn:aws:iam::123456789012:role/reports")
START = 1_800_000_000.0


class Sts:
    """Answers with sessions of an hour, numbered; `status` 403 refuses. Time passes only when told."""

    def __init__(self):
        self.now, self.asked, self.status = START, [], 200
        self.go = asyncio.Event()
        self.go.set()

    def clock(self):
        return self.now

    async def post(self, host, head, body):
        self.asked.append((host, dict(head.headers), body))
        await self.go.wait()
        if self.status == 0:
            raise ConnectionError("upstream_unreachable")
        end = datetime.fromtimestamp(self.now + 3600, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        members = {
            "AccessKeyId": f"ASIA{len(self.asked)}",
            "SecretAccessKey": "s",
            "SessionToken": "t",
            "Expiration": end,
        }
        return self.status, "".join(f"<{name}>{value}</{name}>" for name, value in members.items()).encode()


@pytest.fixture
def sts():
    return Sts()


@pytest.fixture
def opened():
    """The grants whose secrets were opened."""
    return []


@pytest.fixture
def sessions(sts, opened):
    def unseal(grant):
        opened.append(grant)
        return Values({"access_key_id": "AKIA", "secret_access_key": "hush"})

    return Sessions(vault=SimpleNamespace(open=unseal), post=sts.post, clock=sts.clock)


def grant(role=ROLE, *, version=1, kind="sigv4", payload=b"sealed"):
    binding = Binding(hosts=(("s3.eu-west-1.amazonaws.com", 443),), role=role)
    return SimpleNamespace(
        secret_id="s", secret_name="reports", version=version, kind=kind, binding=binding.dump(),
        sealed=Sealed(payload, ()),
    )  # fmt: skip


async def key_id(sessions, of):
    await sessions.prepare(of)
    return sessions.values(of)["access_key_id"]


def code(sessions, of):
    with pytest.raises(Fault) as fault:
        sessions.values(of)
    return fault.value.code


def test_only_secrets_with_a_role_are_concerned(sessions):
    assert sessions.concern(grant())
    assert not sessions.concern(grant(None))
    assert not sessions.concern(grant(kind="bearer"))


async def test_many_requests_at_once_ask_sts_once(sessions, sts, opened):
    assert await asyncio.gather(*(key_id(sessions, grant()) for _ in range(50))) == ["ASIA1"] * 50
    assert await key_id(sessions, grant()) == "ASIA1"
    assert len(sts.asked) == len(opened) == 1
    host, headers, body = sts.asked[0]
    assert host == "sts.eu-west-1.amazonaws.com"
    assert b"Credential=AKIA/" in headers[b"Authorization"]
    assert b"RoleSessionName=alter-egress-reports" in body


async def test_the_next_session_is_fetched_beside_the_requests(sessions, sts):
    assert await key_id(sessions, grant()) == "ASIA1"
    sts.now += 3600 - AHEAD - 1
    assert await key_id(sessions, grant()) == "ASIA1"
    assert len(sts.asked) == 1
    sts.now += 1
    sts.go.clear()
    assert await key_id(sessions, grant()) == "ASIA1"  # without waiting
    await asyncio.sleep(0)
    assert len(sts.asked) == 2
    sts.go.set()
    await asyncio.sleep(0.01)
    assert await key_id(sessions, grant()) == "ASIA2"


async def test_a_session_that_cannot_be_renewed_serves_to_its_end_and_then_nothing_does(sessions, sts, caplog):
    assert await key_id(sessions, grant()) == "ASIA1"
    sts.status, sts.now = 403, START + 3600 - MARGIN - 1
    assert await key_id(sessions, grant()) == "ASIA1"
    sts.now += 1
    with pytest.raises(Fault, match="session_unavailable"):
        await sessions.prepare(grant())
    assert sessions.values(grant())  # of a request that was let in before
    sts.now += MARGIN
    assert code(sessions, grant()) == "session_unavailable"
    assert "the role of the secret reports cannot be assumed (STS answered 403): NotAssumed" in caplog.text
    assert "hush" not in caplog.text


async def test_after_a_failure_sts_is_left_alone_for_a_while(sessions, sts):
    sts.status = 0
    for _ in range(5):
        with pytest.raises(Fault, match="session_unavailable"):
            await sessions.prepare(grant())
    assert len(sts.asked) == 1
    sts.status, sts.now = 200, sts.now + PAUSE
    assert await key_id(sessions, grant()) == "ASIA2"


async def test_a_request_that_is_given_up_does_not_end_the_renewal_for_the_others(sessions, sts):
    sts.go.clear()
    first, second = (asyncio.create_task(key_id(sessions, grant())) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    sts.go.set()
    assert await second == "ASIA1"


@pytest.mark.parametrize("other", [grant(version=2), grant(payload=b"other"), grant(Role(arn=ROLE.arn + "2"))])
async def test_another_version_value_or_binding_is_another_session(sessions, sts, other):
    assert await key_id(sessions, grant()) == "ASIA1"
    assert code(sessions, other) == "session_unavailable"
    assert await key_id(sessions, other) == "ASIA2"


async def test_what_serves_nobody_any_more_is_forgotten(sessions, sts):
    await sessions.prepare(grant(version=1))
    sts.now += 4000
    await sessions.prepare(grant(version=2))
    assert len(sessions._held) == 1
