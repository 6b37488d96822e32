"""Makes the .vsix of the extension: a zip that is the same, byte for byte, wherever it is made.

python web/vscode/pack.py [OUT.vsix]      default: dist/argosy-VERSION.vsix; prints its path and size
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape, quoteattr

HERE: Final = Path(__file__).resolve().parent
REPO: Final = HERE.parents[1]
LIMIT_BYTES: Final = 100_000
_WHEN: Final = (1980, 1, 1, 0, 0, 0)  # what a zip can say at the least: no clock goes into it
_ASSETS: Final = (
    ("Microsoft.VisualStudio.Code.Manifest", "package.json"),
    ("Microsoft.VisualStudio.Services.Content.Details", "README.md"),
    ("Microsoft.VisualStudio.Services.Content.Changelog", "CHANGELOG.md"),
    ("Microsoft.VisualStudio.Services.Content.License", "LICENSE.txt"),
)
_TYPES: Final = {"js": "application/javascript", "json": "application/json", "md": "text/markdown"}


def parts() -> dict[str, bytes]:
    """What is inside, by name."""
    found = {"extension/package.json": HERE / "package.json", "extension/LICENSE.txt": REPO / "LICENSE"}
    found |= {f"extension/{name}": HERE / name for name in ("README.md", "CHANGELOG.md")}
    found |= {f"extension/src/{path.name}": path for path in sorted((HERE / "src").glob("*.js"))}
    found["extension/schema/task.schema.json"] = REPO / "docs" / "generated" / "task.schema.json"
    inside = {name: path.read_bytes() for name, path in found.items()}
    schema = json.loads(inside["extension/schema/task.schema.json"])
    inside["extension/schema/task.schema.json"] = json.dumps(schema, separators=(",", ":")).encode()
    manifest = json.loads(inside["extension/package.json"])
    return {"extension.vsixmanifest": about(manifest), "[Content_Types].xml": types(), **inside}


def about(manifest: dict[str, object]) -> bytes:
    """What shows of the extension before it is installed."""
    name, version = str(manifest["name"]), str(manifest["version"])
    title, text = escape(str(manifest["displayName"])), escape(str(manifest["description"]))
    engines = manifest["engines"]
    assert isinstance(engines, dict)
    engine = quoteattr(str(engines["vscode"]))
    rows = [f'<Asset Type="{kind}" Path="extension/{name}" Addressable="true"/>' for kind, name in _ASSETS]
    assets = "\n".join(rows)
    return f"""<?xml version="1.0" encoding="utf-8"?>
<PackageManifest Version="2.0.0" xmlns="http://schemas.microsoft.com/developer/vsx-schema/2011">
<Metadata>
<Identity Language="en-US" Id={quoteattr(name)} Version={quoteattr(version)} Publisher="argosy"/>
<DisplayName>{title}</DisplayName>
<Description xml:space="preserve">{text}</Description>
<License>extension/LICENSE.txt</License>
<Properties>
<Property Id="Microsoft.VisualStudio.Code.Engine" Value={engine}/>
<Property Id="Microsoft.VisualStudio.Code.ExtensionKind" Value="workspace"/>
</Properties>
</Metadata>
<Installation><InstallationTarget Id="Microsoft.VisualStudio.Code"/></Installation>
<Dependencies/>
<Assets>
{assets}
</Assets>
</PackageManifest>
""".encode()


def types() -> bytes:
    known = {**_TYPES, "txt": "text/plain", "vsixmanifest": "text/xml"}
    lines = "".join(
        f'<Default Extension=".{end}" ContentType="{kind}"/>' for end, kind in sorted(known.items())
    )
    space = "http://schemas.openxmlformats.org/package/2006/content-types"
    return f'<?xml version="1.0" encoding="utf-8"?>\n<Types xmlns="{space}">{lines}</Types>\n'.encode()


def pack(out: Path) -> int:
    """Write the file; its bytes. Raises ValueError when it is larger than it may be."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for name, data in parts().items():
            entry = zipfile.ZipInfo(name, _WHEN)
            entry.compress_type, entry.external_attr, entry.create_system = (
                zipfile.ZIP_DEFLATED,
                0o644 << 16,
                3,
            )
            file.writestr(entry, data)
    size = out.stat().st_size
    if size > LIMIT_BYTES:
        raise ValueError(f"{out} has {size} bytes, at most {LIMIT_BYTES} are allowed")
    return size


if __name__ == "__main__":
    version = json.loads((HERE / "package.json").read_text(encoding="utf-8"))["version"]
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else REPO / "dist" / f"argosy-{version}.vsix"
    print(f"{target} ({pack(target):,} bytes)")
