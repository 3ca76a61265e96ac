"""The machines that a run is planned for: what they hold, how fast they multiply, and how fast they talk.

Products per second are NVIDIA's, dense (its data sheets print twice as much, "with sparsity"), bf16 added up in
float32. Links are bytes per second and direction of one device to the others of its machine: NVLink where such cards
have it, else PCIe of their generation (bridges of two cards are left out). Memory is what torch finds, some GiB below
the name. Between machines one network card of 400 Gb/s per device is taken where there is NVLink, else 100 Gb/s for a
machine of eight. All of them are what is promised; `plan.efficiency` is what is reached.

Source: NVIDIA's data sheets and architecture papers, where it says nothing else.
    B200: Blackwell data sheet, column HGX B200; memory as in pytorch/ao pull request 4002.
    H200, H100: pages of data-center/h200 and /h100; torchtitan, torchtitan/tools/utils.py, has the same 989 and 756.
    A100: A100 data sheet 1758950-r4. L40S, L4, A40, A10: their data sheets. Lightning,
        fabric/utilities/throughput.py, has the same numbers of H100, A100 and A10; S. Bekman, ml-engineering,
        compute/accelerator/README.md, those of H200, H100, A100 and L40S.
    RTX A6000, RTX 3090: GA102 architecture paper V2.0. RTX 4090: Ada architecture paper. The papers' tables could not
        be read here again; other publications agree on float32, and measured bf16 of the 4090 with 165 TFLOP/s.
    Memory: "total capacity" in torch's messages that were published for these cards, the lowest seen.
"""

import re
from dataclasses import dataclass

import torch

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.launcher import launched
from xlmrxl_train.parallel.matrix_peak import matrix_peak
from xlmrxl_train.parallel.memory import memory_of
from xlmrxl_train.spelling import did_you_mean

GIB = 1 << 30
NVLINK_NETWORK, NETWORK = 50e9, 12.5e9
RESERVED = 0.06  # share of a GPU's memory that the allocator cannot use, as blocks do not fit into its gaps: assumed
CONTEXT = 1.5e9  # bytes of a GPU that CUDA, its libraries and NCCL take: assumed
PROCESS = 0.6e9  # bytes of a process of ours with nothing loaded: seen on Linux


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """One device."""

    name: str
    memory: float  # bytes
    bf16: float  # multiplications and additions of matrix products per second
    fp32: float  # the same; tensor cores are not used for float32 unless torch is told so
    link: float  # bytes per second
    network: float = NETWORK  # bytes per second of one device to other machines


def _gpu(name: str, gib: float, bf16: float, fp32: float, link: float, network: float = NETWORK / 8) -> Accelerator:
    return Accelerator(
        name=name, memory=gib * GIB, bf16=bf16 * 1e12, fp32=fp32 * 1e12, link=link * 1e9, network=network
    )


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("B200", 178.3, 2250, 75, 900, NVLINK_NETWORK),
        _gpu("H200", 139.8, 989, 67, 450, NVLINK_NETWORK),
        _gpu("H100-80GB", 79.1, 989, 67, 450, NVLINK_NETWORK),
        _gpu("H100-PCIe-80GB", 79.1, 756, 51, 64),
        _gpu("A100-80GB", 79.2, 312, 19.5, 300, NVLINK_NETWORK),
        _gpu("A100-40GB", 39.4, 312, 19.5, 300, NVLINK_NETWORK),
        _gpu("A40-48GB", 44.4, 149.7, 37.4, 32),
        _gpu("A6000-48GB", 47.4, 154.8, 38.7, 32),
        _gpu("L40S-48GB", 44.4, 362, 91.6, 32),
        _gpu("L4-24GB", 22.0, 121, 30.3, 32),
        _gpu("A10-24GB", 22.0, 125, 31.2, 32),
        _gpu("RTX4090-24GB", 23.6, 165.2, 82.6, 32),
        _gpu("RTX3090-24GB", 23.6, 71, 35.6, 32),
    )
}
# How CUDA calls them, in parts that must all be there; the first that fits counts.
_CUDA_NAMES = {
    "B200": ("B200",),
    "H200": ("H200",),
    "H100-PCIe-80GB": ("H100", "PCIe"),
    "H100-80GB": ("H100",),
    "A100-80GB": ("A100", "80GB"),
    "A100-40GB": ("A100",),
    "A40-48GB": ("A40",),
    "A6000-48GB": ("A6000",),
    "L40S-48GB": ("L40S",),
    "L4-24GB": ("L4",),
    "A10-24GB": ("A10",),
    "RTX4090-24GB": ("RTX", "4090"),
    "RTX3090-24GB": ("RTX", "3090"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Hardware:
    """Machines alike, each with so many devices; a rank has one device."""

    accelerator: Accelerator
    per_machine: int
    machines: int = 1
    host_memory: float | None = None  # bytes of each machine; None: not known

    @property
    def ranks(self) -> int:
        """Processes of a run that uses all of it."""
        return self.per_machine * self.machines

    @property
    def is_cpu(self) -> bool:
        """Whether ranks share the machine's memory and processors."""
        return self.accelerator.name == "cpu"

    @property
    def usable(self) -> float:
        """Bytes of one rank's device that a run may fill."""
        whole = self.accelerator.memory
        return whole / self.per_machine - PROCESS if self.is_cpu else whole * (1 - RESERVED) - CONTEXT

    def peak(self, precision: str) -> float:
        """Return the multiplications and additions per second that one rank could do."""
        whole = self.accelerator.bf16 if precision == "bf16" else self.accelerator.fp32
        return whole / self.per_machine if self.is_cpu else whole

    def describe(self) -> str:
        """Return it as a person writes it."""
        machines = f" in each of {self.machines} machines" if self.machines > 1 else ""
        kind = f"{self.per_machine} x {self.accelerator.name}"
        return (
            f"{kind}, {self.accelerator.memory / 1e9:,.1f} GB{' shared' * (self.is_cpu and self.ranks > 1)}{machines}"
        )


def parse_hardware(text: str, machines: int, device: str = "auto") -> Hardware:
    """Understand plan.hardware.

    Args:
        text: "8xA100-80GB", "H200", "4xcpu"; "auto": this machine.
        machines: plan.nodes.
        device: strategy.device, which chooses between this machine's.

    Raises:
        ConfigError: There is no such accelerator.
    """
    if text == "auto":
        return this_machine(machines, device)
    match = re.fullmatch(r"(?:([1-9]\d{0,3})x)?([A-Za-z][\w-]*)", text)
    names = {name.lower(): name for name in GPUS}
    wanted = match[2].lower() if match else ""
    found = [name for lower, name in names.items() if lower == wanted or lower.rpartition("-")[0] == wanted]
    count = int(match[1] or 1) if match else 1
    if wanted == "cpu":
        return _cpu(count, machines)
    if len(found) != 1:
        hint = did_you_mean(match[2] if match else text, GPUS, f"There are {', '.join(GPUS)} and cpu.")
        raise ConfigError(f"plan.hardware must be auto or <count>x<name> such as 8xA100-80GB, got {text!r}. {hint}")
    return Hardware(accelerator=GPUS[found[0]], per_machine=count, machines=machines)


def this_machine(machines: int = 1, device: str = "auto") -> Hardware:
    """Read what this machine has; a launcher's ranks count, else every GPU is one."""
    local = launched().local_size
    if device == "cpu" or not torch.cuda.is_available():
        return _cpu(local, machines)
    properties = torch.cuda.get_device_properties(0)
    known = next(
        (name for name, parts in _CUDA_NAMES.items() if all(part.lower() in properties.name.lower() for part in parts)),
        None,
    )
    table = GPUS[known] if known else None
    count = local if launched().size > 1 else torch.cuda.device_count()
    return Hardware(
        accelerator=Accelerator(
            name=properties.name,
            memory=float(properties.total_memory),
            bf16=table.bf16 if table else matrix_peak(torch.bfloat16, torch.device("cuda")),
            fp32=table.fp32 if table else matrix_peak(torch.float32, torch.device("cuda")),
            link=table.link if table else 32e9,
            network=table.network if table else NETWORK / 8,
        ),
        per_machine=count,
        machines=machines,
        host_memory=memory_of(torch.device("cpu")),
    )


def _cpu(count: int, machines: int) -> Hardware:
    cpu = torch.device("cpu")
    memory = float(memory_of(cpu))
    return Hardware(
        accelerator=Accelerator(
            name="cpu",
            memory=memory,
            bf16=matrix_peak(torch.bfloat16, cpu),
            fp32=matrix_peak(torch.float32, cpu),
            link=2e9,  # gloo through loopback, as seen
            network=NETWORK,
        ),
        per_machine=count,
        machines=machines,
        host_memory=memory,
    )
