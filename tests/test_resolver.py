"""Every answer of the resolver is judged before a connection can use it, and a connection uses nothing else."""

import asyncio
import contextlib
import ipaddress
import socket

import pytest

from addon import network
from addon.binding import Binding
from addon.errors import Fault
from addon.network import AddressForbidden, Redirect, Rules
from addon.resolver import Resolver

OWN = ("127.0.0.1", 8080)


def answer(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port, 0, 0)[: 4 if ":" in address else 2])


class Names:
    """A name server: addresses by name, a list for each question in turn. What is no list is raised."""

    def __init__(self, **names):
        self.names = {name.replace("_", "."): list(answers) for name, answers in names.items()}
        self.asked = []

    async def getaddrinfo(self, host, port, **_):
        self.asked.append((host, port))
        answers = self.names.get(str(host), [socket.gaierror(-2, "Name or service not known")])
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        return [answer(address, port) for address in found]


@pytest.fixture
def resolve(story):
    """`resolve(names, …)` puts a resolver in front of a name server, as it sits in front of the loop's."""
    story.vault.secrets.put(
        "internal",
        kind="bearer",
        binding=Binding(hosts=(("internal.test", 443), ("*.wild.test", 8443)), flags=frozenset({"private"})),
        values={"token": "internal-canary"},
        now=story.now,
    )

    def make(names=None, *, private=(), redirects=(), own=OWN):
        rules = Rules(network.parse_networks(private))
        resolver = Resolver(vault=story.vault, rules=rules, redirects=redirects, own=own)
        resolver.install(names or Names())
        return resolver

    return make


async def test_public_answers_are_handed_on_ipv4_first(resolve):
    resolver = resolve(Names(api_test=[["2606:4700::1111", "8.8.8.8", "2606:4700::1001", "8.8.4.4"]]))
    found = await resolver.getaddrinfo("api.test", 443, type=socket.SOCK_STREAM)
    assert [entry[4][0] for entry in found] == ["8.8.8.8", "8.8.4.4", "2606:4700::1111", "2606:4700::1001"]


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fe80::1%eth0", "0.0.0.0"]
)
async def test_one_forbidden_answer_spoils_all(resolve, address):
    for answers in ([address], ["8.8.8.8", address], [address, "8.8.8.8"]):
        with pytest.raises(AddressForbidden):
            await resolve(Names(api_test=[answers])).getaddrinfo("api.test", 443)


async def test_the_loop_itself_cannot_reach_what_is_forbidden():
    """A name that rebinds: asyncio connects to what was judged, and asks no second time."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        names = Names(rebind_test=[["127.0.0.1"], ["8.8.8.8"]])
        loop = asyncio.get_running_loop()
        original, loop.getaddrinfo = loop.getaddrinfo, names.getaddrinfo

        class Unbound:
            def bound(self, host, port):
                return None

        Resolver(vault=Unbound(), rules=Rules(), redirects=(), own=OWN).install(loop)
        try:
            with pytest.raises(AddressForbidden):
                await asyncio.open_connection("rebind.test", port)
        finally:
            loop.getaddrinfo = original
        assert names.asked == [("rebind.test", port)]
        with contextlib.suppress(BlockingIOError):
            listener.accept()
            pytest.fail("somebody connected")


async def test_a_private_binding_opens_its_host_on_its_port_alone(resolve):
    private = Names(
        internal_test=[["10.0.0.1"]],
        a_wild_test=[["10.0.0.1"]],
        a_b_wild_test=[["10.0.0.1"]],
        api_stripe_test=[["10.0.0.1"]],
    )
    resolver = resolve(private)
    for host, port in [("internal.test", 443), ("INTERNAL.test.", 443), ("a.wild.test", 8443)]:
        private.names[host] = [["10.0.0.1"]]
        assert await resolver.getaddrinfo(host, port)
    for host, port in [("internal.test", 444), ("a.wild.test", 443), ("a.b.wild.test", 8443), ("api.stripe.test", 443)]:
        with pytest.raises(AddressForbidden):
            await resolver.getaddrinfo(host, port)


async def test_a_disabled_secret_opens_no_private_host(resolve, story):
    resolver = resolve(Names(internal_test=[["10.0.0.1"]]))
    story.vault.secrets.set_state("internal", "disabled", now=story.now)
    with pytest.raises(AddressForbidden):
        await resolver.getaddrinfo("internal.test", 443)


async def test_metadata_is_reached_by_no_binding(resolve):
    with pytest.raises(AddressForbidden):
        await resolve(Names(internal_test=[["169.254.169.254"]])).getaddrinfo("internal.test", 443)


async def test_a_redirection_is_followed_without_asking_and_only_for_its_port(resolve):
    names = Names(api_test=[["8.8.8.8"]])
    resolver = resolve(
        names, redirects=(Redirect("api.test", 443, "127.0.0.1", 8443), Redirect("six.test", 443, "::1", 1))
    )
    assert await resolver.getaddrinfo("API.test.", 443) == [
        (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", 8443))
    ]
    assert (await resolver.getaddrinfo("six.test", 443))[0][0] == socket.AF_INET6
    assert names.asked == []
    assert resolver.redirected("api.test", 443)
    assert not resolver.redirected("api.test", 80)
    assert (await resolver.getaddrinfo("api.test", 80))[0][4] == ("8.8.8.8", 80)


async def test_of_very_many_answers_the_first_are_judged_and_used(resolve):
    many = [str(ipaddress.ip_address("8.8.0.0") + n) for n in range(1000)]
    assert len(await resolve(Names(api_test=[many])).getaddrinfo("api.test", 443)) == 32
    with pytest.raises(AddressForbidden):
        await resolve(Names(api_test=[[*many[:31], "127.0.0.1", *many]])).getaddrinfo("api.test", 443)
    found = await resolve(Names(api_test=[[*many[:32], "127.0.0.1"]])).getaddrinfo("api.test", 443)
    assert "127.0.0.1" not in [entry[4][0] for entry in found]


FAILURES = [
    socket.gaierror(-2, "Name or service not known"),
    TimeoutError(),
    UnicodeError("encoding with 'idna' codec failed"),
    UnicodeEncodeError("idna", "a..b", 0, 1, "label empty"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=repr)
async def test_a_look_up_fails_with_the_one_error_that_those_who_connect_expect(resolve, failure):
    resolver = resolve(Names(api_test=[failure]))
    with pytest.raises(OSError):
        await resolver.getaddrinfo("api.test", 443)
    with pytest.raises(OSError):
        await resolver.allows_untagged("api.test", 443)


async def test_a_vault_that_cannot_be_read_fails_a_connection_and_says_so(resolve, monkeypatch, story):
    def broken(*_):
        raise Fault("vault_unavailable", "locked")

    resolver = resolve(Names(api_test=[["8.8.8.8"]]))
    monkeypatch.setattr(story.vault, "bound", broken)
    with pytest.raises(OSError, match=r"^alter:vault_unavailable$"):
        await resolver.getaddrinfo("api.test", 443)


async def test_a_slow_name_server_is_given_up(resolve, monkeypatch):
    class Slow:
        async def getaddrinfo(self, *_, **__):
            await asyncio.sleep(60)

    monkeypatch.setattr("addon.resolver._SECONDS", 0.01)
    with pytest.raises(TimeoutError):
        await resolve(Slow()).getaddrinfo("api.test", 443)
    with pytest.raises(TimeoutError):
        await resolve(Slow()).allows_untagged("api.test", 443)


async def test_traffic_without_a_grant_reaches_a_bound_host_only_at_addresses_open_to_all(resolve):
    names = Names(internal_test=[["10.0.0.1"]], mixed_test=[["8.8.8.8", "10.0.0.1"]], api_test=[["8.8.8.8"]])
    resolver = resolve(names)
    assert not await resolver.allows_untagged("internal.test", 443)
    assert not await resolver.allows_untagged("mixed.test", 443)
    assert await resolver.allows_untagged("api.test", 443)
    assert await resolve(names, private=["10.0.0.0/8"]).allows_untagged("internal.test", 443)
    assert await resolve(names, redirects=(Redirect("internal.test", 443, "127.0.0.1", 1),)).allows_untagged(
        "internal.test", 443
    )


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_the_proxy_never_connects_to_itself_whatever_is_allowed(resolve, address):
    everywhere = resolve(private=["0.0.0.0/0", "::/0"])
    assert not everywhere.allows(address, 8080)
    assert not everywhere.allows(address, 8080, bound_private=True)
    assert resolve(private=["127.0.0.0/8", "::1/128"]).allows(address.removeprefix("::ffff:"), 8081)


def test_others_may_listen_on_the_same_port(resolve):
    assert resolve().allows("8.8.8.8", 8080)
    assert resolve(private=["10.0.0.0/8"]).allows("10.0.0.1", 8080)
    assert not resolve().allows("10.0.0.1", 8080)


async def test_hosts_that_are_no_text_are_judged_like_others(resolve):
    resolver = resolve(Names(**{"None": [["127.0.0.1"]]}))
    with pytest.raises(AddressForbidden):
        await resolver.getaddrinfo(None, 80)
