"""Lambda: whole machines with GPUs, on demand."""

from __future__ import annotations

from argosy.infra.machine_create import vendor_driver
from argosy.infra.provider import Capabilities, Limits, Manifest
from argosy.model.priced import PriceSource

MANIFEST = Manifest(
    name="lambda",
    title="Lambda",
    capabilities=Capabilities(multi_node=True),
    limits=Limits(nodes_max=16, text="Lambda takes one order in 12 seconds: a gang has at most 16 nodes"),
    class_name="Lambda",
    extra="clouds",
    settings=("LAMBDA_API_KEY", "LAMBDA_API_URL"),
    credentials=("LAMBDA_API_KEY", "~/.lambda_cloud/lambda_keys"),
    sign_in="make a key at https://cloud.lambda.ai/api-keys and set LAMBDA_API_KEY",
    priced_by_catalog=True,
    tested="a fake of its API with real hosts",
    prices=PriceSource(keys=("LAMBDA_API_KEY",)),
    observe_s=20.0,
)

#: LAMBDA_API_URL: another address of the API, for tests.
create = vendor_driver(__name__, "Lambda")
