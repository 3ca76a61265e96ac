"""Runs under torchrun: one thing goes wrong on one rank.

python ranks.py OUT command [override ...]            the command line as it is
python ranks.py OUT small_files:<rank> [override ...] one rank may write no file above 1 MiB
python ranks.py OUT poison:<rank> [override ...]      one rank's gradient is NaN in steps 4 and 5
python ranks.py OUT shards                            divided tensors are saved and read in other divisions
"""

import os
import resource
import sys
from pathlib import Path

import torch

RANK = int(os.environ["RANK"])


def poison(rank: int, out: Path) -> None:
    """Make one rank's gradient NaN before it is reduced, and save what happens to the weights in each step."""
    from xlmrxl_train.parallel.single import SingleStrategy

    accumulate, step, calls = SingleStrategy.accumulate, SingleStrategy.step, 0

    def poisoned(self, inputs, scale, *, last):
        if rank == RANK and calls in (3, 4):
            scale = scale * float("nan")
        return accumulate(self, inputs, scale, last=last)

    def watched(self, lr):
        nonlocal calls
        calls += 1
        before = [parameter.detach().clone() for parameter in self.model.parameters()]
        result = step(self, lr)
        after = [parameter.detach().clone() for parameter in self.model.parameters()]
        same = all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
        torch.save({"skipped": result.skipped, "same": same, "after": after}, out / f"{RANK}-{calls}.pt")
        return result

    SingleStrategy.accumulate, SingleStrategy.step = poisoned, watched


def shards(out: Path) -> None:
    """Save DTensors divided by rows, by columns and not at all; read them in other divisions and whole."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    from xlmrxl_train.config import StrategyConfig
    from xlmrxl_train.parallel import World
    from xlmrxl_train.parallel.tensor_files import load_tensors, save_tensors

    world = World.open(StrategyConfig(device="cpu"))
    mesh = init_device_mesh("cpu", (world.size,))
    whole = {"matrix": torch.arange(35.0).view(7, 5), "cube": torch.arange(60.0).view(3, 4, 5).bfloat16(),
             "row": torch.arange(3.0)}  # fmt: skip
    places = [Shard(0), Shard(1), Replicate()]
    for number, place in enumerate(places):
        use = {k: v for k, v in whole.items() if v.dim() > 1 or place != Shard(1)}
        save_tensors(out / f"{number}", {k: distribute_tensor(v, mesh, [place]) for k, v in use.items()}, world)
        for other in places:
            then = {k: v for k, v in use.items() if v.dim() > 1 or other != Shard(1)}
            got = {k: distribute_tensor(torch.zeros_like(v), mesh, [other]) for k, v in then.items()}
            load_tensors(out / f"{number}", got, world)
            for name, tensor in got.items():
                assert torch.equal(tensor.full_tensor(), whole[name]), (name, place, other)
        plain = {k: torch.zeros_like(v) for k, v in use.items()}
        load_tensors(out / f"{number}", plain, world)
        assert all(torch.equal(plain[k], whole[k]) for k in use)
    dist.barrier()
    world.close()


def main() -> int:
    out, what, *words = Path(sys.argv[1]), *sys.argv[2:]
    what, _, rank = what.partition(":")
    if what == "shards":
        shards(out)
        return 0
    if what == "poison":
        poison(int(rank), out)
    if what == "small_files" and int(rank) == RANK:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
    from xlmrxl_train.cli import main as command

    return command(words)


if __name__ == "__main__":
    sys.exit(main())
