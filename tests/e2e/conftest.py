"""
Fixtures of the end-to-end tests: real processes, real TLS, loopback only.

    upstream   takes what the proxy sends to HOSTS          evil       speaks for evil.test, with a good certificate
    impostor   speaks for HOSTS, with a bad certificate     s3server   verifies S3 signatures
    moto       other AWS services

    seed        a vault in which a secret of each kind is granted to the app `billing`
    stage       a copy of it with a running proxy, shared by most tests
    launch      `launch(…)` starts another one, for one test alone
    vaultctl    a copy without a proxy
    cloud       another proxy, for s3server and moto

Whatever uses `stage` or `engine` runs twice: once with each engine.
"""

import contextlib
from pathlib import Path

import pytest
import trustme

from tests.e2e.aws import BUCKET, Cloud, make_seed
from tests.e2e.moto import Moto
from tests.e2e.product import routes
from tests.e2e.s3server import S3Server, Unavailable
from tests.e2e.stage import Seed, Stage
from tests.e2e.upstream import Upstream

HERE = Path(__file__).parent

HOSTS = (
    "api.stripe.test",
    "api.datadog.test",
    "maps.google.test",
    "api.twilio.test",
    "api.unbound.test",
    "iot.eu-west-1.amazonaws.com",
    "unheardof.eu-west-1.amazonaws.com",
)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == HERE:
            # Real processes on a machine that may be busy: a second try tells a defect from a delay.
            item.add_marker(pytest.mark.flaky(reruns=2, reruns_delay=1))
        if item.path.parent == HERE and {"launch", "stage", "engine", "vaultctl"} & set(item.fixturenames):
            item.add_marker(pytest.mark.e2e)


@pytest.fixture(scope="session")
def authority():
    """The CA that the proxy is told to trust for upstreams."""
    return trustme.CA()


@pytest.fixture(scope="session")
def authority_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("authority") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


@pytest.fixture(scope="session")
def _upstream(authority):
    with Upstream(HOSTS, authority=authority) as upstream:
        yield upstream


@pytest.fixture(scope="session")
def _evil(authority):
    with Upstream(["evil.test"], authority=authority) as upstream:
        yield upstream


@pytest.fixture(scope="session")
def _impostor():
    with Upstream(HOSTS, authority=trustme.CA()) as upstream:
        yield upstream


def _watched(upstream):
    upstream.reset()
    yield upstream
    assert not upstream.errors


@pytest.fixture
def upstream(_upstream):
    """The upstream that secrets are bound to; it has seen nothing yet."""
    yield from _watched(_upstream)


@pytest.fixture
def evil(_evil):
    """Another upstream, genuine, and nobody's business."""
    yield from _watched(_evil)


@pytest.fixture
def impostor(_impostor):
    """A server that claims the names of `upstream` and cannot prove them."""
    yield from _watched(_impostor)


@pytest.fixture(scope="session")
def _aws_identity(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("aws") / "identity.pem"
    authority.issue_cert("127.0.0.1", *S3Server.hosts, *Moto.hosts).private_key_and_cert_chain_pem.write_to_path(path)
    return path


@pytest.fixture(scope="session")
def s3server(pytestconfig, tmp_path_factory, _aws_identity):
    """An S3 server that verifies signatures (`key`, `temporary_key`), or a skip that says why there is none."""
    try:
        server = S3Server(pytestconfig.cache.mkdir("swift"), tmp_path_factory.mktemp("s3"), identity=_aws_identity)
    except Unavailable as reason:
        pytest.skip(str(reason))
    with server:
        yield server


@pytest.fixture(scope="session")
def moto(_aws_identity, authority_file):
    """Other AWS services, which know one key."""
    with Moto(identity=_aws_identity, trust=authority_file) as server:
        yield server


@pytest.fixture(scope="session")
def seed(tmp_path_factory):
    """A vault to be copied."""
    return Seed.make(tmp_path_factory.mktemp("seed") / "home")


@pytest.fixture
def vaultctl(seed, tmp_path):
    """The control tool on a vault of this test's own."""
    return seed.copy(tmp_path / "home")


@pytest.fixture(scope="session", params=["auto", "stock"])
def engine(request):
    """Which of the two engines carries HTTP/1.1 tunnels."""
    return request.param


@pytest.fixture
def launch(seed, tmp_path, upstream, evil, authority_file):
    """`launch(*options)` starts a proxy on a vault of its own; hosts of the upstreams lead there. All are stopped."""
    with contextlib.ExitStack() as started:

        def launch(*options, leads_to=(upstream, evil), **settings):
            usual = ["--upstream-ca", authority_file, *routes(*leads_to)]
            home = tmp_path / f"home-{len(list(tmp_path.iterdir()))}"
            return started.enter_context(Stage.open(seed, home, *usual, *options, **settings))

        yield launch


@pytest.fixture(scope="session")
def _stage(engine, seed, tmp_path_factory, _upstream, _evil, authority_file):
    home = tmp_path_factory.mktemp(f"stage-{engine}") / "home"
    options = ["--upstream-ca", authority_file, *routes(_upstream, _evil)]
    with Stage.open(seed, home, *options, engine=engine) as stage:
        yield stage


@pytest.fixture
def stage(_stage, upstream, evil):
    """What most tests need, started once for each engine. The upstreams have seen nothing yet."""
    return _stage


@pytest.fixture(scope="session")
def cloud_seed(seed, s3server, moto, tmp_path_factory, authority_file):
    """A vault with secrets for AWS."""
    home = tmp_path_factory.mktemp("cloud") / "home"
    return make_seed(seed, home, s3=s3server, moto=moto, trust=authority_file)


@pytest.fixture(scope="session")
def cloud_options(s3server, moto, _upstream, authority_file):
    """What leads the hosts of AWS to the servers here."""
    return ["--upstream-ca", authority_file, *routes(s3server, moto, _upstream)]


@pytest.fixture(scope="session")
def cloud(engine, cloud_seed, cloud_options, tmp_path_factory):
    """A proxy for AWS with a small limit for what must be held, once for each engine. There is a bucket."""
    home = tmp_path_factory.mktemp(f"cloud-{engine}") / "home"
    with Stage.open(cloud_seed, home, *cloud_options, "--max-signed-body", "8MiB", engine=engine) as stage:
        cloud = Cloud(stage)
        with cloud.sdk("s3") as client:
            if BUCKET not in [b["Name"] for b in client.list_buckets()["Buckets"]]:
                client.create_bucket(Bucket=BUCKET)
        yield cloud
