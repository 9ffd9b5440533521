"""Service and region from the host, and what the binding and the client have to say."""

import pytest

from addon.credentials import aws_scope
from addon.credentials.aws_scope import Scope
from addon.errors import Refusal

HOSTS = """
s3.amazonaws.com s3 us-east-1
my-bucket.s3.amazonaws.com s3 us-east-1
us-west-2.s3.amazonaws.com s3 us-east-1
dynamodb.us-east-1.s3.amazonaws.com s3 us-east-1
us-west-2.s3.eu-west-1.amazonaws.com s3 eu-west-1
my.dotted.bucket.s3.us-west-2.amazonaws.com s3 us-west-2
foo.s3.us-west-2.s3.eu-west-1.amazonaws.com s3 eu-west-1
my-bucket.s3-us-west-2.amazonaws.com s3 us-west-2
a.us-east-1.s3-us-west-2.amazonaws.com s3 us-west-2
s3-eu-west-1.amazonaws.com s3 eu-west-1
s3-fips-us-gov-west-1.amazonaws.com s3 us-gov-west-1
a.b.s3.dualstack.eu-west-1.amazonaws.com s3 eu-west-1
s3-fips.us-gov-east-1.amazonaws.com s3 us-gov-east-1
b.s3.cn-north-1.amazonaws.com.cn s3 cn-north-1
my-bucket.s3.us-iso-east-1.c2s.ic.gov s3 us-iso-east-1
s3-external-1.amazonaws.com s3 us-east-1
myap-123456789012.s3-accesspoint.eu-west-1.amazonaws.com s3 eu-west-1
banner-123456789012.s3-object-lambda.eu-west-1.amazonaws.com s3-object-lambda eu-west-1
ap-123456789012.op-01.s3-outposts.us-east-1.amazonaws.com s3-outposts us-east-1
123456789012.s3-control.eu-west-1.amazonaws.com s3 eu-west-1
s3express-control.us-east-1.amazonaws.com s3express us-east-1
abc123.execute-api.us-east-1.amazonaws.com execute-api us-east-1
abcdefg.lambda-url.eu-west-1.on.aws lambda eu-west-1
abc.us-east-1.aoss.amazonaws.com aoss us-east-1
search-x-abc.us-east-1.es.amazonaws.com es us-east-1
vpc-x-abc.eu-central-1.es.amazonaws.com es eu-central-1
search-x-abc.aos.us-east-1.on.aws es us-east-1
iam.amazonaws.com iam us-east-1
iam.us-gov.amazonaws.com iam us-gov-west-1
iam.cn-north-1.amazonaws.com.cn iam cn-north-1
sts.amazonaws.com sts us-east-1
sts.eu-west-1.amazonaws.com sts eu-west-1
sts-fips.us-east-1.amazonaws.com sts us-east-1
sts.eusc-de-east-1.amazonaws.eu sts eusc-de-east-1
bedrock-runtime.us-east-1.amazonaws.com bedrock us-east-1
bedrock-runtime-fips.us-east-1.amazonaws.com bedrock us-east-1
monitoring.us-east-1.amazonaws.com monitoring us-east-1
email.us-east-1.amazonaws.com ses us-east-1
iot.us-east-1.amazonaws.com iot us-east-1
a1b2c3-ats.iot.us-east-1.amazonaws.com iotdata us-east-1
data-ats.iot.us-east-1.amazonaws.com iotdata us-east-1
route53.amazonaws.com route53 us-east-1
cloudfront.amazonaws.com cloudfront us-east-1
waf.amazonaws.com waf us-east-1
organizations.us-east-1.amazonaws.com organizations us-east-1
api.pricing.us-east-1.amazonaws.com pricing us-east-1
globalaccelerator.amazonaws.com globalaccelerator us-west-2
globalaccelerator.us-west-2.amazonaws.com globalaccelerator us-west-2
api.ecr.us-east-1.amazonaws.com ecr us-east-1
ecr.us-east-1.api.aws ecr us-east-1
runtime.sagemaker.us-east-1.amazonaws.com sagemaker us-east-1
runtime-v2-lex.us-east-1.amazonaws.com lex us-east-1
streams.dynamodb.us-east-1.amazonaws.com dynamodb us-east-1
987654321098.ddb.us-east-1.amazonaws.com dynamodb us-east-1
dynamodb.us-east-1.api.aws dynamodb us-east-1
sync-states.us-east-1.amazonaws.com states us-east-1
us-east-1.elasticmapreduce.amazonaws.com elasticmapreduce us-east-1
us-west-2.queue.amazonaws.com sqs us-west-2
queue.amazonaws.com sqs us-east-1
ec2.amazonaws.com ec2 us-east-1
rds.amazonaws.com rds us-east-1
metering.marketplace.us-east-1.amazonaws.com aws-marketplace us-east-1
transcribestreaming.us-east-1.amazonaws.com transcribe us-east-1
aps-workspaces.us-east-1.amazonaws.com aps us-east-1
abcd.data.mediastore.us-east-1.amazonaws.com mediastore us-east-1
xyz.appsync-api.us-east-1.amazonaws.com appsync us-east-1
mycell.kinesisvideo.us-east-1.amazonaws.com kinesisvideo us-east-1
x.cluster-abc.us-east-1.neptune.amazonaws.com neptune-db us-east-1
doc-x-abc.us-east-1.cloudsearch.amazonaws.com cloudsearch us-east-1
pipe-abc.us-east-1.osis.amazonaws.com osis us-east-1
svc-0abc.7d67968.vpc-lattice-svcs.us-east-2.on.aws vpc-lattice-svcs us-east-2
vpce-0123456789abcdef0-abcd1234.kinesis.us-east-1.vpce.amazonaws.com kinesis us-east-1
vpce-0123456789abcdef0-abcd1234-us-east-1a.execute-api.us-east-1.vpce.amazonaws.com execute-api us-east-1
bucket.vpce-0123456789abcdef0-abcd1234.s3.us-east-1.vpce.amazonaws.com s3 us-east-1
my-bucket.bucket.vpce-0123456789abcdef0-abcd1234.s3.us-east-1.vpce.amazonaws.com s3 us-east-1
vpce-0123456789abcdef0-abcd1234.bedrock-runtime.us-east-1.vpce.amazonaws.com bedrock us-east-1
sqs.ap-east-9.amazonaws.com sqs ap-east-9
"""
KNOWN = [line.split() for line in HOSTS.strip().splitlines()]

STRANGERS = [
    "example.com",
    "amazonaws.com",
    "amazonaws.com.evil.example",
    "s3.us-west-2.amazonaws.com.evil.example",
    "us-east-1.signin.amazonaws.com.evil.example",
    "evilamazonaws.com",
    "s3.us-west-2.evilamazonaws.com",
    "s3.us-west-2.amazonaws.com.cn.evil",
    "my-bucket.s3-website-us-east-1.amazonaws.com",
    "my-bucket.s3-website.eu-central-1.amazonaws.com",
    "dxxxx.cloudfront.net",
    "foo.us-east-1.elb.amazonaws.com",
    "ec2-1-2-3-4.compute-1.amazonaws.com",
    "ec2-1-2-3-4.eu-west-1.compute.amazonaws.com",
    "email-smtp.us-east-1.amazonaws.com",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com",
    "sqs.mars-north-9.amazonaws.com",
    "x.sqs.us-east-1.amazonaws.com",
    "dynamodb.us-east-1.on.aws",
    "evil.us-east-1.on.aws",
    "evil.vpce-1-2.kinesis.us-east-1.vpce.amazonaws.com",
    "my-bucket.s3-accelerate.amazonaws.com",
]

OTHER_SIGNATURES = [
    "my-bucket--use1-az6--x-s3.s3express-use1-az6.us-east-1.amazonaws.com",
]


def code(host, **claims):
    with pytest.raises(Refusal) as refusal:
        aws_scope.scope(host, **claims)
    return refusal.value.code


@pytest.mark.parametrize(("host", "service", "region"), KNOWN, ids=[k[0] for k in KNOWN])
def test_a_host_of_aws_says_its_scope(host, service, region):
    assert aws_scope.scope(host) == Scope(service, region)


@pytest.mark.parametrize("host", STRANGERS)
def test_any_other_host_says_nothing(host):
    assert code(host) == "signing_scope_unknown"


@pytest.mark.parametrize("host", OTHER_SIGNATURES)
def test_hosts_that_want_another_signature_are_refused(host):
    assert code(host) == "signing_unsupported"
    assert code(host, services=("s3",), regions=("us-east-1",)) in ("signing_unsupported", "signing_scope_not_bound")
    assert aws_scope.conflict(host, services=(), regions=())


@pytest.mark.parametrize(
    ("path", "service"),
    [(b"/v2/tiles/x", "geo-maps"), (b"/maps/v0/maps/m/tiles/1/2/3", "geo")],
)
def test_where_two_services_share_a_host_the_path_decides(path, service):
    assert aws_scope.scope("maps.geo.eu-west-1.amazonaws.com", path=path) == Scope(service, "eu-west-1")
    assert code("maps.geo.eu-west-1.amazonaws.com", path=b"/") == "signing_scope_unknown"


def test_the_families_differ_in_how_a_path_is_signed():
    assert Scope("s3", "r").family == Scope("s3-outposts", "r").family == "s3"
    assert Scope("dynamodb", "r").family == "aws"


def test_a_binding_gives_the_scope_of_a_host_that_is_not_of_aws():
    assert aws_scope.scope("minio.test", services=("s3",), regions=("local",)) == Scope("s3", "local")
    assert code("minio.test", services=("s3",)) == "signing_scope_unknown"
    assert code("minio.test", regions=("local",)) == "signing_scope_unknown"
    assert code("minio.test", client_scope=Scope("s3", "local")) == "signing_scope_unknown"


def test_a_binding_may_not_contradict_a_host_of_aws():
    assert aws_scope.scope("sqs.eu-west-1.amazonaws.com", services=("sqs",), regions=("eu-west-1",)).service == "sqs"
    assert code("sqs.eu-west-1.amazonaws.com", services=("iam",)) == "signing_scope_not_bound"
    assert code("sqs.eu-west-1.amazonaws.com", regions=("us-east-1",)) == "signing_scope_not_bound"


def test_the_client_is_heard_only_where_host_and_binding_are_silent():
    fast = "my-bucket.s3-accelerate.amazonaws.com"
    assert aws_scope.scope(fast, client_scope=Scope("s3", "eu-west-1")).region == "eu-west-1"
    assert aws_scope.scope(fast, regions=("us-west-2",), client_scope=Scope("s3", "eu-west-1")).region == "us-west-2"
    assert aws_scope.scope("s3.amazonaws.com", client_scope=Scope("s3", "eu-west-1")).region == "eu-west-1"
    assert aws_scope.scope("s3.eu-west-1.amazonaws.com", client_scope=Scope("s3", "us-east-1")).region == "eu-west-1"
    assert aws_scope.scope("s3.eu-west-1.amazonaws.com", client_scope=Scope("iam", "us-east-1")).service == "s3"
    assert code(fast, client_scope=Scope("iam", "eu-west-1")) == "signing_scope_unknown"
    assert code(fast, client_scope=Scope("s3", "eu/west\r\n")) == "signing_scope_unknown"
    assert aws_scope.scope("minio.test", services=("s3",), client_scope=Scope("s3", "local")).region == "local"


def test_of_several_names_in_a_binding_the_client_says_which():
    bound = {"services": ("s3", "sqs"), "regions": ("eu-west-1", "local")}
    assert aws_scope.scope("minio.test", **bound, client_scope=Scope("sqs", "local")) == Scope("sqs", "local")
    assert code("minio.test", **bound) == "signing_scope_unknown"
    assert code("minio.test", **bound, client_scope=Scope("iam", "local")) == "signing_scope_not_bound"
    assert code("minio.test", **bound, client_scope=Scope("s3", "us-east-1")) == "signing_scope_not_bound"
    assert aws_scope.scope("sqs.eu-west-1.amazonaws.com", **bound).region == "eu-west-1"
    assert aws_scope.scope("sqs.eu-west-1.amazonaws.com", **bound, client_scope=Scope("iam", "x")).service == "sqs"
    assert code("sqs.us-east-1.amazonaws.com", **bound) == "signing_scope_not_bound"
    assert code("iam.amazonaws.com", **bound) == "signing_scope_not_bound"


def test_the_region_that_a_host_has_by_default_must_be_bound_too():
    assert aws_scope.scope("s3.amazonaws.com", regions=("us-east-1", "eu-west-1")).region == "us-east-1"
    assert code("s3.amazonaws.com", regions=("us-west-1", "eu-west-1")) == "signing_scope_not_bound"
    picked = aws_scope.scope(
        "s3.amazonaws.com", regions=("us-west-1", "eu-west-1"), client_scope=Scope("s3", "eu-west-1")
    )
    assert picked.region == "eu-west-1"


def test_the_region_of_a_host_in_a_binding():
    assert aws_scope.region_of("sqs.eu-west-1.amazonaws.com") == "eu-west-1"
    assert aws_scope.region_of("*.s3.eu-west-1.amazonaws.com") == "eu-west-1"
    assert aws_scope.region_of("s3.amazonaws.com") is None
    assert aws_scope.region_of("minio.test") is None


@pytest.mark.parametrize(
    ("host", "services", "regions", "problem"),
    [
        ("minio.test", [], [], "not a host of AWS"),
        ("minio.test", ["s3"], [], None),
        ("*.example.com", [], [], None),
        ("sqs.eu-west-1.amazonaws.com", [], [], None),
        ("sqs.eu-west-1.amazonaws.com", ["s3"], [], "belongs to the service sqs, not to s3"),
        ("sqs.eu-west-1.amazonaws.com", ["s3", "sns"], [], "not to s3 or sns"),
        ("sqs.eu-west-1.amazonaws.com", ["s3", "sqs"], ["eu-west-1", "us-east-1"], None),
        ("sqs.eu-west-1.amazonaws.com", [], ["us-east-1"], "lies in the region eu-west-1"),
        ("maps.geo.eu-west-1.amazonaws.com", ["geo-maps"], [], None),
    ],
)
def test_a_contradiction_is_found_when_the_binding_is_written(host, services, regions, problem):
    found = aws_scope.conflict(host, services=services, regions=regions)
    assert found is problem if problem is None else problem in found
