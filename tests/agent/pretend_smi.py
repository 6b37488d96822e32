"""`nvidia-smi mig` over the file that the pretend NVML reads (STUB_MIG): makes and removes instances of an
H100."""

from __future__ import annotations

import os
import sys
from pathlib import Path

#: profile: compute slices' name, memory slices, MiB, where it may begin, numbers that instances of it get
PROFILES = {
    "1g.10gb": (1, 9728, range(7), range(7, 14)),
    "3g.40gb": (4, 40448, (0, 4), (1, 2)),
    "7g.80gb": (8, 81152, (0,), (0,)),
}


def main(options: list[str]) -> int:
    path = Path(os.environ["STUB_MIG"])
    lines = [line.split() for line in path.read_text().splitlines()]
    given = dict(zip(options, [*options[1:], ""], strict=True))
    card = given["-i"]
    mine = [line for line in lines if line[0] == card and len(line) == 6]
    if "-cgi" in given:
        profile, _, start = given["-cgi"].partition(":")
        profile = "7g.80gb" if profile == "0" else profile
        size, mib, starts, numbers = PROFILES[profile]
        taken = {slot for line in mine for slot in range(int(line[2]), int(line[2]) + int(line[3]))}
        free = [s for s in ([int(start)] if start else starts) if not taken & set(range(s, s + size))]
        if not free:
            print("Unable to create a GPU instance: Insufficient Resources")
            return 19
        number = next(n for n in numbers if str(n) not in [line[1] for line in mine])
        with path.open("a") as out:
            out.write(f"{card} {number} {free[0]} {size} {profile} {mib}\n")
        print(f"Successfully created GPU instance ID {number:2} on GPU {card:>2} using profile MIG {profile}")
        if "-C" in options:
            print(f"Successfully created compute instance ID  0 on GPU {card:>2} GPU instance ID {number:2}")
        return 0
    if "-dgi" in options:
        left = [line for line in lines if line[:2] != [card, given["-gi"]] or len(line) != 6]
        path.write_text("".join(" ".join(line) + "\n" for line in left))
        if left == lines:
            print("No GPU instances found")
            return 6
        print(f"Successfully destroyed GPU instance ID {given['-gi']:>2} from GPU {card:>2}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
