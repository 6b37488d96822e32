"""What a claim's job brings to the cluster: one archive with the driver, the keeper and the agent. Pure."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Final, NamedTuple

#: Ray starts the command with a shell, whose parent runs in Ray's own Python: that one is used, wherever
#: it is.
ENTRYPOINT: Final = (
    "lib=$(grep -m1 -o '/.*/ray/_raylet.so' /proc/$PPID/maps); site=${lib%/ray/_raylet.so}; "
    'py=${site%/lib*/python*/*-packages}/bin/python3; [ -n "$lib" ] && [ -x "$py" ] || py=python3; '
    'exec "$py" on_cluster.py'
)
_PROGRAMS: Final = ("on_cluster.py", "on_node.py", "on_post.py")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the same bytes on every build


class Package(NamedTuple):
    name: str  # as Ray's store of packages calls it: by its content
    agent: str  # the file of the agent in it
    data: bytes

    @property
    def uri(self) -> str:
        return f"gcs://{self.name}"


def build_package(agent: Path) -> Package:
    """Raises OSError."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in (*(Path(__file__).with_name(each) for each in _PROGRAMS), agent):
            info = zipfile.ZipInfo(path.name, _EPOCH)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, path.read_bytes())
    data = buffer.getvalue()
    return Package(f"_ray_pkg_{hashlib.sha256(data).hexdigest()[:16]}.zip", agent.name, data)
