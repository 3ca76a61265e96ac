"""What ranks hold: against numbers worked out by hand, and against real steps on CPU ranks."""

import json
from pathlib import Path

import pytest
import torch

from tests.parallel.engines import DIVIDED, WORDS, environment
from tests.plan import measuring
from tests.torchrun import forked
from xlmrxl_train.config import VARIANTS, Config
from xlmrxl_train.model import XLMRobertaXLConfig, XLMRobertaXLForSequenceClassification, XLMRobertaXLLayer
from xlmrxl_train.plan.states import Shapes, States, states_of

# Of the encoder, and of the head.
XL = 3_475_929_600 + 2560 * 2560 + 2560 + 3 * 2560 + 3
SMALL = [
    *(word for word in WORDS if "dropout" not in word and "precision" not in word and "batch_size" not in word),
    "train.batch_size=16", "model.hidden_size=128", "model.intermediate_size=512", "model.num_hidden_layers=3",
    "model.vocab_size=20000",
]  # fmt: skip
CUT = "train.tokens_per_micro_batch=128"


@pytest.fixture(scope="module")
def xl() -> Shapes:
    with torch.device("meta"):
        return Shapes.of(XLMRobertaXLForSequenceClassification(XLMRobertaXLConfig(num_labels=3)), XLMRobertaXLLayer)


def states(strategy: str, shapes: Shapes, ranks: int, micro_batches: int = 1, **settings: object) -> States:
    config = Config(strategy=VARIANTS["strategy"][strategy](**settings))
    return states_of(config, shapes, ranks, micro_batches)


def test_xl_has_the_parameters_that_it_has(xl: Shapes) -> None:
    assert xl.trained == XL and not xl.frozen
    assert xl.of_units()[0] == 250_880 * 2560 and xl.of_units()[1] == 78_676_480


def test_full_fine_tuning_takes_16_bytes_per_parameter_under_single_and_fsdp2(xl: Shapes) -> None:
    single = states("single", xl, 1)
    assert single.weights == single.gradients == 4 * XL and single.optimizer == 8 * XL
    assert single.lasting / 1e9 == pytest.approx(55.7, abs=0.05)
    assert states("ddp", xl, 8).lasting == single.lasting
    assert states("fsdp2", xl, 8).lasting == pytest.approx(16 * XL / 8, rel=1e-3)
    assert states("fsdp2", xl, 16, shard_size=8).lasting == pytest.approx(16 * XL / 8, rel=1e-3)


def test_deepspeed_takes_2_bytes_more_for_the_bf16_weights_that_forward_reads(xl: Shapes) -> None:
    assert states("zero3", xl, 8).lasting == pytest.approx(18 * XL / 8 + 500e6, rel=0.01)
    assert states("zero2", xl, 8).lasting == pytest.approx(2 * XL + 16 * XL / 8, rel=1e-3)
    assert states("zero1", xl, 8).lasting == pytest.approx(8 * XL + 12 * XL / 8, rel=1e-3)


def test_offload_moves_them(xl: Shapes) -> None:
    offloaded = states("zero3_offload", xl, 8)
    assert offloaded.lasting == pytest.approx(500e6, rel=1e-3)
    assert offloaded.host == pytest.approx(22 * XL / 8, rel=0.01)
    fsdp2 = states("fsdp2", xl, 8, offload=True)
    assert fsdp2.lasting == 0 and fsdp2.host == pytest.approx(2 * XL, rel=1e-3)
    nvme = states("zero3_nvme", xl, 8, nvme_path="/fast")
    assert nvme.disk == pytest.approx(16 * XL / 8, rel=0.01) and nvme.weights == pytest.approx(2 * XL / 8, rel=0.01)


def test_frozen_weights_are_held_in_bf16_alone() -> None:
    with torch.device("meta"):
        model = XLMRobertaXLForSequenceClassification(XLMRobertaXLConfig(num_labels=3)).requires_grad_(False)
    model.classifier.requires_grad_(True)
    head = sum(parameter.numel() for parameter in model.classifier.parameters())
    single = states("single", Shapes.of(model, XLMRobertaXLLayer), 1)
    assert single.weights == 2 * (XL - head) + 4 * head and single.optimizer == 8 * head


def test_what_is_sent(xl: Shapes) -> None:
    assert states("single", xl, 1).sent == 0
    assert states("ddp", xl, 8, 3).sent == pytest.approx(2 * 7 / 8 * 4 * XL)
    assert states("zero1", xl, 8, 3).sent == pytest.approx(7 / 8 * 6 * XL)
    assert states("zero2", xl, 8, 3).sent == pytest.approx(7 / 8 * 14 * XL)
    for strategy in ("zero3", "fsdp2"):
        assert states(strategy, xl, 8, 3).sent == pytest.approx(3 * 7 / 8 * 8 * XL)
    kept = states("fsdp2", xl, 8, 3, reshard_after_forward=False)
    assert kept.sent == pytest.approx(3 * 7 / 8 * 6 * XL)


def test_moments_in_eight_bits(xl: Shapes) -> None:
    assert xl.moments(Config()) == 8
    config = Config()
    config.optimizer.name = "adamw_8bit"
    assert xl.moments(config) == pytest.approx(2 * (1 + 4 / 256), rel=0.01)


def close(measured: dict[str, float]) -> None:
    """States and activations within the 10 % that are promised; they are within 1."""
    assert measured["lasting"] == pytest.approx(measured["states"], rel=0.02)
    assert measured["kept"] == pytest.approx(measured["saved"], rel=0.02)


@pytest.mark.parametrize("words", [["train.precision=fp32"], ["train.precision=bf16", CUT, "train.recompute=every_2"]])
def test_a_real_step_of_one_process(words: list[str]) -> None:
    close(measuring.measure([*SMALL, *words]))


JOBS = {
    "ddp": ["strategy=ddp"],
    "ddp, cut": ["strategy=ddp", CUT, "train.recompute=full"],
    "fsdp2": ["strategy=fsdp2"],
    "fsdp2, fp32, cut": ["strategy=fsdp2", "train.precision=fp32", CUT, "train.recompute=every_2"],
    "fsdp2, offload": ["strategy=fsdp2", "strategy.offload=true", "strategy.pin_memory=false"],
    "zero1": ["strategy=zero1"],
    "zero1, fp32": ["strategy=zero1", "train.precision=fp32", CUT],
    "zero2": ["strategy=zero2", CUT],
    "zero3": ["strategy=zero3"],
    "zero3, divided": ["strategy=zero3", *DIVIDED, CUT, "train.recompute=full"],
    "zero3, fp32": ["strategy=zero3", "train.precision=fp32"],
    "zero3_offload": ["strategy=zero3_offload", "strategy.pin_memory=false"],
}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_real_steps_of_ranks(ranks: int, tmp_path: Path) -> None:
    jobs = {name: [*SMALL, *words] for name, words in JOBS.items()}
    done = forked(Path(measuring.__file__), str(tmp_path), json.dumps(jobs), ranks=ranks, seconds=500,
                    **environment(tmp_path / "cache"))  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results) == set(JOBS)
    for name, measured in results.items():
        assert measured["lasting"] == pytest.approx(measured["states"], rel=0.1), name
        assert measured["kept"] == pytest.approx(measured["saved"], rel=0.02), name
