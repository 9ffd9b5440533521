"""Assuming a role: the request to STS, what its answer gives, and what could never be assumed."""

from urllib.parse import parse_qsl

import pytest

from addon.binding import Binding, Role
from addon.credentials import aws_role, sigv4
from addon.errors import Usage
from addon.model import Values

NOW = 1_440_938_160.0  # 2015-08-30T12:36:00Z
ROLE = Role(arn="arn:aws:iam::123456789012:role/team/reports", external_id="a:b/c=", seconds=900)
KEY = Values({"access_key_id": "AKIDEXAMPLE", "secret_access_key": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"})
ANSWER = b"""<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASIAEXAMPLE</AccessKeyId><SecretAccessKey>hush+/=</SecretAccessKey><SessionToken>FwoG/token+==</SessionToken>
<Expiration>2015-08-30T12:51:00.123Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


def test_the_request_is_signed_and_says_which_role_for_how_long_and_for_whom(crt):
    head, body = aws_role.request(ROLE, values=KEY, host="sts.eu-west-1.amazonaws.com", name="my secret", now=NOW)
    assert crt(head, body=body) == ("sts", "eu-west-1")
    assert dict(parse_qsl(body.decode())) == {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": ROLE.arn,
        "RoleSessionName": "alter-egress-my-secret",
        "DurationSeconds": "900",
        "ExternalId": "a:b/c=",
    }
    plain = aws_role.request(Role(arn=ROLE.arn), values=KEY, host="sts.amazonaws.com", name="x" * 99, now=NOW)[1]
    assert b"ExternalId" not in plain
    assert len(dict(parse_qsl(plain.decode()))["RoleSessionName"]) == 64


def test_the_answer_is_a_session_until_it_ends():
    session = aws_role.read(200, ANSWER, now=NOW, seconds=3600)
    assert dict(session.values) == {
        "access_key_id": "ASIAEXAMPLE",
        "secret_access_key": "hush+/=",
        "session_token": "FwoG/token+==",
    }
    assert session.expires_at == NOW + 900
    assert "hush" not in repr(session)


def test_a_session_never_lives_longer_than_was_asked_for():
    assert aws_role.read(200, ANSWER, now=NOW, seconds=60).expires_at == NOW + 60


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (403, b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>hush</Message></Error></ErrorResponse>", "403 AccessDenied"),
        (500, b"hush", "STS answered 500"),
        (200, b"", "no AccessKeyId"),
        (200, ANSWER.replace(b"SessionToken", b"Token"), "no SessionToken"),
        (200, ANSWER + ANSWER, "no AccessKeyId"),
        (200, ANSWER.replace(b"hush+", b"hush&lt;"), "no SecretAccessKey"),
        (200, ANSWER.replace(b"hush+", b"hush\r\nX: "), "no SecretAccessKey"),
        (200, ANSWER.replace(b"2015-08", b"soon"), "no date"),
    ],
)  # fmt: skip
def test_any_other_answer_is_none(status, body, message):
    with pytest.raises(aws_role.NotAssumed, match=message) as refused:
        aws_role.read(status, body, now=NOW, seconds=3600)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("members", "partition", "host"),
    [
        ({"regions": ("eu-west-1",)}, "aws", "sts.eu-west-1.amazonaws.com"),
        ({"hosts": (("s3.ap-south-1.amazonaws.com", 443),)}, "aws", "sts.ap-south-1.amazonaws.com"),
        ({"hosts": (("s3.amazonaws.com", 443), ("*.s3.eu-west-1.amazonaws.com", 443))}, "aws", "sts.eu-west-1.amazonaws.com"),
        ({"hosts": (("s3.amazonaws.com", 443),)}, "aws", "sts.us-east-1.amazonaws.com"),
        ({"services": ("s3",), "regions": ("local",)}, "aws", "sts.us-east-1.amazonaws.com"),
        ({"regions": ("cn-north-1",)}, "aws-cn", "sts.cn-north-1.amazonaws.com.cn"),
        ({"regions": ("us-gov-east-1",)}, "aws-us-gov", "sts.us-gov-east-1.amazonaws.com"),
        ({}, "aws-us-gov", "sts.us-gov-west-1.amazonaws.com"),
    ],
)  # fmt: skip
def test_sts_is_asked_in_the_region_of_the_binding(members, partition, host):
    role = Role(arn=ROLE.arn.replace("arn:aws:", f"arn:{partition}:"))
    assert aws_role.endpoint(Binding(**({"hosts": (("minio.example.com", 443),)} | members)), role) == host


@pytest.mark.parametrize(
    "members",
    [
        {"arn": "arn:aws:iam::123456789012:user/x"},
        {"arn": "arn:aws:iam::1:role/x"},
        {"arn": "arn:aws-iso:iam::123456789012:role/x"},
        {"arn": "arn:aws:iam::123456789012:role/x\n"},
        {"external_id": "x"},
        {"external_id": "a b"},
        {"seconds": 899},
        {"seconds": 43_201},
    ],
)
def test_a_role_that_could_never_be_assumed_is_refused_when_written(members):
    binding = Binding(hosts=(("s3.amazonaws.com", 443),), role=Role(**({"arn": ROLE.arn} | members)))
    with pytest.raises(Usage):
        sigv4.KIND.check_binding(binding)
    assert sigv4.KIND.check_binding(Binding(hosts=binding.hosts, role=ROLE)).role == ROLE
