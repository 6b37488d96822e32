"""Names of infrastructure as classes, for programs that write `Resources(cloud=sky.AWS())`."""

from __future__ import annotations


class Cloud:
    """One infrastructure, by its name in `infra:`.

    >>> str(AWS()), AWS() == AWS()
    ('aws', True)
    >>> DO()
    DO()

    A name is not a driver: `argosy check` says what can be launched on, `argosy gpus` what has prices.
    """

    NAME = ""

    def __str__(self) -> str:
        return self.NAME

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


class Local(Cloud):
    NAME = "local"


class AWS(Cloud):
    NAME = "aws"


class GCP(Cloud):
    NAME = "gcp"


class Azure(Cloud):
    NAME = "azure"


class OCI(Cloud):
    NAME = "oci"


class Lambda(Cloud):
    NAME = "lambda"


class RunPod(Cloud):
    NAME = "runpod"


class Nebius(Cloud):
    NAME = "nebius"


class Kubernetes(Cloud):
    NAME = "kubernetes"


class Slurm(Cloud):
    NAME = "slurm"


class SSH(Cloud):
    NAME = "ssh"


class Fluidstack(Cloud):
    NAME = "fluidstack"


class Paperspace(Cloud):
    NAME = "paperspace"


class Cudo(Cloud):
    NAME = "cudo"


class DO(Cloud):
    NAME = "digitalocean"


class IBM(Cloud):
    NAME = "ibm"


class SCP(Cloud):
    NAME = "scp"


class Vast(Cloud):
    NAME = "vast"


class Vsphere(Cloud):
    NAME = "vsphere"


class Verda(Cloud):
    NAME = "verda"


class Hyperstack(Cloud):
    NAME = "hyperstack"


class Hyperbolic(Cloud):
    NAME = "hyperbolic"


class PrimeIntellect(Cloud):
    NAME = "primeintellect"


class Seeweb(Cloud):
    NAME = "seeweb"


class Shadeform(Cloud):
    NAME = "shadeform"


class Mithril(Cloud):
    NAME = "mithril"


class Yotta(Cloud):
    NAME = "yotta"


class Ray(Cloud):
    NAME = "ray"
