"""What a client's signature says it is for."""

import pytest

from addon.credentials import aws_claim, aws_wire
from addon.credentials.aws_scope import Scope

V4 = "AWS4-HMAC-SHA256 Credential=AKID/20300101/eu-west-1/s3/aws4_request, SignedHeaders=host, Signature=00"
V4A = "AWS4-ECDSA-P256-SHA256 Credential=alter_grant_x/20300101/s3/aws4_request, SignedHeaders=host, Signature=00"


def claimed(authorization, *headers, query=b""):
    return aws_claim.read(((b"Authorization", authorization.encode()), *headers), aws_wire.read_query(query))


def test_a_signature_states_service_and_region_and_an_asymmetric_one_regions_beside_it():
    assert claimed(V4) == Scope("s3", "eu-west-1")
    assert claimed(V4A, (b"X-Amz-Region-Set", b"eu-west-1,us-*")) == Scope("s3", "eu-west-1,us-*", asymmetric=True)
    assert claimed("Bearer x") is None


def test_the_query_goes_first():
    query = b"X-Amz-Credential=AKID%2F20300101%2Fus-east-1%2Fiam%2Faws4_request"
    assert claimed(V4, query=query) == Scope("iam", "us-east-1")


@pytest.mark.parametrize("part", ["Credential=", "Credential=a", "Credential=/20300101/", "Credential=a/20300101/b/"])
def test_what_states_nothing_is_read_once_at_any_length(part):
    """Looking at the rest of it from each `Credential=` again would take minutes."""
    assert claimed("AWS4-HMAC-SHA256 " + part * 150_000) is None
