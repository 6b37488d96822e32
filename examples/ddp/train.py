"""A small regression trained by every rank on its own data; DDP averages the gradients. Checks that it
does."""

from __future__ import annotations

import argparse
import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def flat(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])


def check_equal(what: str, mine: torch.Tensor) -> None:
    """Every rank must hold the same numbers; says so or ends the run."""
    everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size())]
    dist.all_gather(everyone, mine)
    if not all(torch.equal(everyone[0], other) for other in everyone[1:]):
        raise SystemExit(f"{what} differ between ranks")
    if dist.get_rank() == 0:
        print(f"{what} are equal on all {len(everyone)} ranks", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()

    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = (
        torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        if torch.cuda.is_available()
        else torch.device("cpu")
    )
    print(f"rank {rank} of {world} on node {os.environ.get('ARGOSY_NODE_RANK', '?')} ({device})", flush=True)

    torch.manual_seed(rank)  # different weights at first: DDP hands out those of rank 0
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)).to(device)
    ddp = DistributedDataParallel(model)
    optimizer = torch.optim.Adam(ddp.parameters(), lr=1e-2)
    check_equal("first weights", flat(list(model.parameters())))

    for step in range(1, args.steps + 1):
        x = torch.randn(64, 16, generator=torch.Generator().manual_seed(step * world + rank)).to(device)
        loss = ((ddp(x) - x.sum(1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        if step == 1:
            check_equal("gradients", flat([parameter.grad for parameter in model.parameters()]))
        optimizer.step()
        if step == 1 or step % 20 == 0 or step == args.steps:
            print(f"step {step} loss {loss.item():.4f}", flush=True)

    check_equal("final weights", flat(list(model.parameters())))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
