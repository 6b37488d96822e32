"""Names of infrastructures that users write.

Written by docs/generate.py from the manifests of `argosy.providers`.
"""

# fmt: off
from typing import Final

#: Other names of the same infrastructure.
ALIASES: Final = {
    "datacrunch": "verda",
    "do": "digitalocean",
    "k8s": "kubernetes",
    "localhost": "local",
}
#: People's own machines.
OWNED: Final = (
    "kubernetes",
    "local",
    "ray",
    "slurm",
    "ssh",
    "vsphere",
)
#: All that follows the name is one region, which may contain `/`.
REGION_IS_REST: Final = frozenset((
    "kubernetes",
    "ray",
))
#: Fields of `config.<name>` in task files.
TASK_FIELDS: Final = {
    "aws": (
        "vpc_name",
        "subnet_names",
        "security_group_name",
        "remote_identity",
        "key_name",
        "ssh_user",
        "capacity_reservation",
        "kms_key",
        "encrypted",
    ),
    "azure": (
        "resource_group_vm",
        "storage_account",
        "remote_identity",
        "ssh_user",
        "capacity_reservation",
        "kms_key",
        "encrypted",
    ),
    "gcp": (
        "vpc_name",
        "subnet_names",
        "use_internal_ips",
        "force_enable_external_ips",
        "remote_identity",
        "specific_reservations",
        "reservation_bound",
        "managed_instance_group",
        "placement_policy",
        "enable_gvnic",
        "enable_gpu_direct",
        "kms_key",
        "ssh_user",
        "runtime_version",
        "labels",
    ),
    "kubernetes": (
        "pod_config",
        "custom_metadata",
        "provision_timeout",
        "dws",
        "kueue",
        "quota",
        "remote_identity",
        "enable_docker",
        "set_pod_resource_limits",
        "namespace",
        "autoscaler",
        "ports",
        "service_account",
        "image_pull_secrets",
    ),
    "local": (
        "nodes",
    ),
    "nebius": (
        "region_configs",
        "use_internal_ips",
    ),
    "oci": (
        "region_configs",
        "vcn_subnet",
        "vcn_ocid",
        "compartment_ocid",
    ),
    "ray": (
        "entrypoint",
        "runtime_env",
        "entrypoint_num_cpus",
        "entrypoint_num_gpus",
        "entrypoint_memory",
        "entrypoint_resources",
        "native",
        "resources",
        "provision_timeout",
    ),
    "runpod": (
        "allowed_cuda_versions",
        "network_volume",
        "network_volume_path",
        "bid_per_gpu",
        "registry",
    ),
    "slurm": (
        "sbatch_options",
        "quota",
        "cpu_partition",
        "provision_timeout",
        "partition",
        "account",
        "qos",
        "time",
        "constraint",
        "reservation",
        "native",
    ),
    "ssh": (
        "pod_config",
        "custom_metadata",
        "provision_timeout",
    ),
    "vast": (
        "datacenter_only",
        "min_reliability",
        "create_instance_kwargs",
    ),
}
#: Of these, whose driver acts on them.
READS_TASK: Final = (
    "aws",
    "azure",
    "gcp",
    "kubernetes",
    "nebius",
    "oci",
    "ray",
    "runpod",
    "slurm",
    "vast",
)
#: Kinds of volumes in task files, and whose they are.
VOLUME_TYPES: Final = {
    "k8s-pvc": "kubernetes",
    "k8s-hostpath": "kubernetes",
    "runpod-network-volume": "runpod",
}
#: Of these, the field that is a command of its own kind of job.
COMMAND_FIELDS: Final = {
    "ray": "entrypoint",
}
#: Of these, the field with which the place itself runs so many jobs of an array at once.
ARRAY_FIELDS: Final = {
    "slurm": "native",
}
