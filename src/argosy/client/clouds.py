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


# --- Written by docs/generate.py from the manifests of `argosy.providers`.


class AWS(Cloud):
    NAME = "aws"


class Azure(Cloud):
    NAME = "azure"


class Cudo(Cloud):
    NAME = "cudo"


class DO(Cloud):
    NAME = "digitalocean"


class Fluidstack(Cloud):
    NAME = "fluidstack"


class GCP(Cloud):
    NAME = "gcp"


class Hyperbolic(Cloud):
    NAME = "hyperbolic"


class Hyperstack(Cloud):
    NAME = "hyperstack"


class IBM(Cloud):
    NAME = "ibm"


class Kubernetes(Cloud):
    NAME = "kubernetes"


class Lambda(Cloud):
    NAME = "lambda"


class Local(Cloud):
    NAME = "local"


class Mithril(Cloud):
    NAME = "mithril"


class Nebius(Cloud):
    NAME = "nebius"


class OCI(Cloud):
    NAME = "oci"


class Paperspace(Cloud):
    NAME = "paperspace"


class PrimeIntellect(Cloud):
    NAME = "primeintellect"


class Ray(Cloud):
    NAME = "ray"


class RunPod(Cloud):
    NAME = "runpod"


class SCP(Cloud):
    NAME = "scp"


class SSH(Cloud):
    NAME = "ssh"


class Seeweb(Cloud):
    NAME = "seeweb"


class Shadeform(Cloud):
    NAME = "shadeform"


class Slurm(Cloud):
    NAME = "slurm"


class Vast(Cloud):
    NAME = "vast"


class Verda(Cloud):
    NAME = "verda"


class Vsphere(Cloud):
    NAME = "vsphere"


class Yotta(Cloud):
    NAME = "yotta"
