"""What fits, the most that fits, and the cheapest change: each answer is looked at by planning it again."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from xlmrxl_train.cli import load_config
from xlmrxl_train.data.tokenizer import Tokenizer
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.forecast import _settled
from xlmrxl_train.outline import plain_model
from xlmrxl_train.plan.hardware import GIB, GPUS, Hardware, parse_hardware
from xlmrxl_train.plan.inputs import inputs_of
from xlmrxl_train.plan.planning import Planner
from xlmrxl_train.plan.workload import Workload, stated
from xlmrxl_train.session import SAMPLE_TOKENIZER
from xlmrxl_train.tasks import make_task

SHAPE = [
    "model=xl", "model.num_hidden_layers=6", "model.path=null", "model.vocab_size=20000", "task.max_length=128",
    "train.batch_size=256",
]  # fmt: skip
WORKLOAD = Workload(examples=((42,),) * 50, total=1000, origin="made up")  # one length: quickly looked at
Make = Callable[..., Planner]


@pytest.fixture(scope="module")
def make() -> Make:
    """Return what plans 6 layers of XL's width, 0.53 billion parameters, on devices of so many bytes."""
    tokenizer = Tokenizer.from_path(SAMPLE_TOKENIZER)
    footprints: dict[object, object] = {}  # of one model and workload: looked at once for all tests

    def made(gigabytes: float, *words: str, ranks: int = 1, host: float | None = None) -> Planner:
        config = load_config(["recipe=xnli", *SHAPE, *words])
        task = make_task(config.task, config.dataset, tokenizer)
        device = replace(GPUS["A100-80GB"], memory=(gigabytes * 1e9 + 1.5e9) / 0.94)
        return Planner(
            config=config,
            hardware=Hardware(accelerator=device, per_machine=ranks, host_memory=host),
            workload=WORKLOAD,
            outline=plain_model(config, task, len(tokenizer), None),
            inputs=inputs_of(task),
            _footprints=footprints,  # type: ignore[arg-type]
        )

    return made


def test_what_fits_says_so_and_the_largest_budget_fits_too(make: Make) -> None:
    large = "train.batch_size=4096"  # so that a step has several micro-batches, whatever the budget
    plan = make(20, large).plan()
    assert plan.fits and plan.remedy is None and plan.weights == 4 * plan.parameters
    assert plan.usable == pytest.approx(20e9)
    assert plan.training <= plan.training_at_budget
    budget = plan.largest_budget
    assert budget is not None and budget % 256 == 0 and budget > 8192
    at_most, more = (make(20, large, f"train.tokens_per_micro_batch={budget + extra}").plan() for extra in (0, 1024))
    assert at_most.training_at_budget <= plan.usable < more.training_at_budget


@pytest.mark.parametrize(
    ("gigabytes", "ranks", "beginning"),
    [
        (11.0, 1, ["train.tokens_per_micro_batch="]),
        (10.3, 1, ["train.recompute=selective"]),
        (9.9, 1, ["train.recompute=full"]),
        (6.0, 4, ["strategy=fsdp2"]),
        (5.0, 1, ["strategy=fsdp2", "strategy.offload=true"]),
        (0.5, 1, None),
    ],
)
def test_the_cheapest_change_makes_it_fit(
    gigabytes: float, ranks: int, beginning: list[str] | None, make: Make
) -> None:
    planner = make(gigabytes, ranks=ranks)
    plan = planner.plan()
    assert not plan.fits
    if beginning is None:
        assert plan.remedy is None and planner.advice().startswith("Use more or larger devices")
        return
    assert plan.remedy is not None, plan
    assert " ".join(plan.remedy).startswith(" ".join(beginning)), plan.remedy
    assert make(gigabytes, *plan.remedy, ranks=ranks).plan().fits
    assert planner.advice() == f"It fits with {' '.join(plan.remedy)}."


def test_memory_of_the_machine_bounds_what_is_offloaded(make: Make) -> None:
    words = ["strategy=fsdp2", "strategy.offload=true"]
    assert make(5, *words, host=40e9).plan().fits
    plan = make(5, *words, host=5e9).plan()
    assert not plan.fits and plan.largest_budget is None and plan.host == pytest.approx(16 * plan.parameters, rel=0.01)


def test_auto_takes_as_many_tokens_and_computes_as_few_layers_twice_as_fit(make: Make) -> None:
    auto = ["train.tokens_per_micro_batch=auto", "train.recompute=auto"]
    for gigabytes, expected in ((20, "none"), (10.2, "every_"), (9.7, "full")):
        settled = _settled(make(gigabytes, *auto)).config.train
        assert settled.recompute.startswith(expected), (gigabytes, settled.recompute)
        words = [
            f"train.recompute={settled.recompute}",
            f"train.tokens_per_micro_batch={settled.tokens_per_micro_batch}",
        ]
        assert make(gigabytes, *words).plan().fits
    few = make(20, *auto, "train.batch_size=8")
    assert _settled(few).config.train.tokens_per_micro_batch <= 8 * 42 + 256  # a step has no more
    with pytest.raises(ConfigError, match=r"training must fit into memory: it needs [0-9.]+ GB on each of 1 "):
        _settled(make(8, *auto))


def test_time_is_what_products_take_or_the_wire(make: Make) -> None:
    plan = make(40, ranks=1).plan()
    assert plan.efficiency == 0.4 and plan.efficiency_origin == "assumed"
    tokens = plan.seconds_per_step * plan.tokens_per_second
    assert tokens == pytest.approx(256 * 42)
    assert plan.tokens_per_second == pytest.approx(0.4 * 312e12 / plan.flops)
    assert plan.steps == 3 * 4 and plan.seconds == pytest.approx(12 * plan.seconds_per_step)
    shared = make(40, "strategy=zero3", "train.batch_size=8", ranks=8).plan()
    assert shared.seconds_per_step == shared.seconds_sending == pytest.approx(shared.sent / 300e9)


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [("8xA100-80GB", "A100-80GB", 8), ("h200", "H200", 1), ("2xl40s", "L40S-48GB", 2), ("4xcpu", "cpu", 4)],
)
def test_names_of_hardware(text: str, name: str, count: int) -> None:
    hardware = parse_hardware(text, 2)
    assert (hardware.accelerator.name, hardware.per_machine, hardware.ranks) == (name, count, 2 * count)
    assert hardware.usable > GIB and hardware.peak("bf16") > 1e9


@pytest.mark.parametrize("text", ["8xA100", "0xH200", "8x", "H300", "8 x H200"])
def test_unknown_hardware_is_named(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_hardware(text, 1)
    message = str(caught.value)
    assert message.startswith(f"plan.hardware must be auto or <count>x<name> such as 8xA100-80GB, got {text!r}. ")
    assert message.endswith(("?", "."))


def test_stated_lengths() -> None:
    xnli = stated(None, 256, 10)
    assert xnli.mean == pytest.approx(42.2, abs=1) and max(xnli.sizes) <= 96
    assert sum(xnli.filled(1000)) == 1000 and xnli.filled(1000) == sorted(xnli.filled(1000), reverse=True)
    longer = stated(200, 256, None)
    assert longer.mean == pytest.approx(200, rel=0.05) and max(longer.sizes) == 256
    cut = xnli.cut(128, 1, 2048)
    assert cut.micro_batches in (3, 4) and 1300 < cut.tokens <= 2048
    assert xnli.cut(128, 8, 8192).micro_batches == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_this_machine_is_read() -> None:
    hardware = parse_hardware("auto", 1)
    assert hardware.is_cpu and hardware.ranks == 1 and hardware.host_memory == hardware.accelerator.memory
