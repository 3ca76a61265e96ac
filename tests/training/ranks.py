"""Runs under torchrun: one thing goes wrong on one rank.

python ranks.py OUT command [override ...]            the command line as it is
python ranks.py OUT small_files:<rank> [override ...] one rank may write no file above 256 KiB
python ranks.py OUT poison:<rank> [override ...]      one rank's gradient is NaN in steps 4 and 5
python ranks.py OUT hang:<rank> [override ...]        one rank sleeps for ever in step 5, between forward and optimizer
python ranks.py OUT slow:<seconds> [override ...]     ten rows, a step and an evaluated batch each take so much longer
python ranks.py OUT long:<seconds> [override ...]     rank 0 takes so long to read the rows
python ranks.py OUT tokenizer:<rank> [override ...]   one rank finds another tokenizer
python ranks.py OUT torch:<rank> [override ...]       one rank has another torch
python ranks.py OUT words:<rank> [override ...]       one rank is started with another optimizer.eps
python ranks.py OUT data:<rank> [override ...]        one rank finds other data
python ranks.py OUT folder:<rank> [override ...]      one rank has a file system of its own in place of OUT
python ranks.py OUT kill:<rank> [override ...]        SIGKILL to one rank in step 11, where it is started the first time
python ranks.py OUT SIGTERM:<rank> [override ...]     that signal to one rank in step 5
python ranks.py OUT shards                            divided tensors are saved and read in other divisions
"""

import os
import resource
import signal
import sys
import time
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


def hang() -> None:
    from xlmrxl_train.parallel.single import SingleStrategy

    step, calls = SingleStrategy.step, 0

    def hanging(self, lr):
        nonlocal calls
        calls += 1
        while calls == 5:
            time.sleep(3600)
        return step(self, lr)

    SingleStrategy.step = hanging


def slow(seconds: float) -> None:
    """Make everything slow that says that it moves."""
    from xlmrxl_train.data import corpus
    from xlmrxl_train.data.sources import FileSource
    from xlmrxl_train.parallel.single import SingleStrategy
    from xlmrxl_train.training.trainer import Trainer

    rows, corpus.CHUNK = FileSource.rows, 10

    def slow_rows(self, split, language):
        for number, row in enumerate(rows(self, split, language)):
            time.sleep(seconds * (1 if RANK == 0 else 30) * (number % 10 == 0))  # the others find rank 0's in the cache
            yield row

    def slowed(method):
        def wrapped(*arguments):
            time.sleep(seconds)
            return method(*arguments)

        return wrapped

    FileSource.rows = slow_rows
    Trainer._step, SingleStrategy.predict = slowed(Trainer._step), slowed(SingleStrategy.predict)


def long(seconds: float) -> None:
    from xlmrxl_train.data.sources import FileSource
    from xlmrxl_train.progress import progress

    rows, asleep = FileSource.rows, [False]

    def slow_rows(self, split, language):
        while RANK == 0 and not asleep[0]:
            for _ in range(round(seconds)):
                progress.move()
                time.sleep(1)
            asleep[0] = True
        yield from rows(self, split, language)

    FileSource.rows = slow_rows


def other(what: str, out: Path, words: list[str]) -> list[str]:
    """Make this rank unlike the others; return the words to start it with."""
    from xlmrxl_train import session
    from xlmrxl_train.data.sources import FileSource
    from xlmrxl_train.data.tokenizer import Tokenizer
    from xlmrxl_train.parallel import agreement

    if what == "tokenizer":
        from_path = Tokenizer.from_path
        session.Tokenizer = type("Other", (), {"from_path": lambda *_: from_path(out / "tokenizer.json")})
    if what == "torch":
        agreement.torch = type("Other", (), {"__version__": "2.99.0"})
    if what == "data":
        fingerprint = FileSource.fingerprint
        FileSource.fingerprint = lambda self, split, language: fingerprint(self, split, language)[::-1]
    if what == "folder":  # a process of its own, since its namespace must be there before threads are
        mounted = f"mount -t tmpfs tmpfs {out} && exec {sys.executable} {__file__} {out} command " + '"$@"'
        os.execvp("unshare", ["unshare", "-m", "sh", "-c", mounted, "sh", *words])
    return words


def kill_in_step(number: int, sent: signal.Signals, first_time_only: bool) -> None:
    from xlmrxl_train.training.trainer import Trainer

    step = Trainer._step

    def killed(self, index, micro_batches, lr):
        if index + 1 == number and not (first_time_only and os.environ["TORCHELASTIC_RESTART_COUNT"] != "0"):
            if sent == signal.SIGKILL:  # after backward, before the weights change
                accumulate = self.strategy.accumulate
                self.strategy.accumulate = lambda *a, **k: (accumulate(*a, **k), os.kill(os.getpid(), sent))
            else:
                os.kill(os.getpid(), sent)
        return step(self, index, micro_batches, lr)

    Trainer._step = killed


def together(words: list[str], odd: int) -> int:
    from xlmrxl_train import load_config, train
    from xlmrxl_train.errors import UserError

    config_dir, words = words[1], words[2:]
    try:
        train(load_config([*words, *(["optimizer.eps=1e-5"] if odd == RANK else [])], config_dir=config_dir))
    except UserError as error:
        print(f"rank {RANK} raised: {error}", file=sys.stderr)
        return 2
    return 0


def main() -> int:
    out, what, *words = Path(sys.argv[1]), *sys.argv[2:]
    what, _, rank = what.partition(":")
    if what == "shards":
        shards(out)
        return 0
    if what == "poison":
        poison(int(rank), out)
    if what == "slow":
        slow(float(rank))
    if what == "long":
        long(float(rank))
    if what == "hang" and int(rank) == RANK:
        hang()
    if what in ("tokenizer", "torch", "data", "folder") and int(rank) == RANK:
        words = other(what, out, words)
    if what in ("kill", "SIGTERM", "SIGUSR1") and int(rank) == RANK:
        number = signal.SIGKILL if what == "kill" else signal.Signals[what]
        kill_in_step(11 if what == "kill" else 5, number, first_time_only=what == "kill")
    if what == "words":  # as a program of one's own that composes on every rank
        return together(words, int(rank))
    if what == "small_files" and int(rank) == RANK:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
    from xlmrxl_train.cli import main as command

    return command(words)


if __name__ == "__main__":
    sys.exit(main())
