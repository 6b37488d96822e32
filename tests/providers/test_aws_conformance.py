"""The AWS driver passes the suite against a fake EC2 that speaks the real protocol to the real boto3."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from aws_cloud import AwsSubject, Cloud, a_provider, one_cloud

from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold
from argosy.testing.fake_ec2 import why_no_fake_ec2

pytestmark = pytest.mark.skipif(bool(why_no_fake_ec2()), reason=why_no_fake_ec2() or "there is a fake EC2")


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    yield from one_cloud()


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, cloud: Cloud, tmp_path: Path) -> None:
    cloud.fake.reset()
    subject = AwsSubject(a_provider(tmp_path, cloud.clock, cloud.account), cloud.fake, cloud.clock)
    try:
        asyncio.run(hold(case, subject))
    except NotApplicable as reason:
        pytest.skip(str(reason))
    foreign = {each.id for each in cloud.fake.instances() if each.image_id == "ami-1"}
    assert [line for line in cloud.fake.left() if line.split()[0] not in foreign] == []
