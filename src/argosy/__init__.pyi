"""What a type checker sees of `argosy`: the names that it resolves on first use."""

from argosy import aio as aio
from argosy import clouds as clouds
from argosy import exceptions as exceptions
from argosy import jobs as jobs
from argosy import serve as serve
from argosy.client.async_client import AsyncClient as AsyncClient
from argosy.client.sdk import *  # noqa: F403

__version__: str
