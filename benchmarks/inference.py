"""Our pipelines against transformers' on the same texts and weights: at its best, and as it comes.

    python -m benchmarks.inference --data ../shared/data --task fill-mask --limit 512

The peer's best gets texts sorted by length, longest first, and the best of its batch sizes and attention
implementations, chosen beforehand on some of the texts; its default gets them as they are, one by one. All three take
turns, part by part, and are timed from texts to answers. Both sides compute in bfloat16. Then the best answer to every
text of a part is compared in float32, where both have to agree.
"""

import argparse
import gzip
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.measure import clock, describe, machine, table, timed, write_json
from benchmarks.workload import SHAPES
from xlmrxl_train import Tokenizer, pipeline
from xlmrxl_train.model import PreTrained, XLMRobertaXLConfig, XLMRobertaXLForMaskedLM
from xlmrxl_train.model import XLMRobertaXLForSequenceClassification as Classifier
from xlmrxl_train.session import SAMPLE_TOKENIZER

MODELS: dict[str, type[PreTrained]] = {"fill-mask": XLMRobertaXLForMaskedLM, "text-classification": Classifier}
DEFAULT_SHARE = 8  # one text of so many is given to the peer's default, which takes long
Answers = list[Any]


def read_pairs(data: Path | None, limit: int) -> tuple[list[list[str]], Path, str]:
    """Return pairs of texts, the tokenizer's file, and where the texts are from."""
    if data is not None and (data / "nli" / "xnli").is_dir():
        file, tokenizer = data / "nli/xnli/test/test-en.tsv.gz", data / "tokenizer/xlmr/tokenizer.json.gz"
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows = [line.rstrip("\n").split("\t")[:2] for line in lines]
        return rows[:limit], tokenizer, "XNLI English, test"
    file = next(path for path in sorted(SAMPLE_TOKENIZER.rglob("*en*.tsv*")) if path.parent.name == "nli")
    text = gzip.decompress(file.read_bytes()).decode() if file.suffix == ".gz" else file.read_text(encoding="utf-8")
    rows = [line.split("\t")[:2] for line in text.splitlines()[1:]]
    return rows[:limit], SAMPLE_TOKENIZER / "tokenizer.json.gz", "the packaged sample"


def inputs_of(task: str, pairs: Sequence[Sequence[str]]) -> list[Any]:
    """Return what the pipeline of a task is given: pairs, or texts with their middle word masked."""
    if task == "text-classification":
        return [{"text": text, "text_pair": pair} for text, pair in pairs]
    masked = []
    for text, _ in pairs:
        words = text.split()
        words[len(words) // 2] = "<mask>"
        masked.append(" ".join(words))
    return masked


def make_model(folder: Path, options: argparse.Namespace, tokenizer: Tokenizer) -> None:
    """Write a model with random weights and its tokenizer."""
    torch.manual_seed(0)
    config = XLMRobertaXLConfig(**SHAPES[options.shape].options(len(tokenizer), 0.1))
    MODELS[options.task](config).bfloat16().save_pretrained(folder)
    tokenizer.save(folder)


class Peer:
    """transformers' pipeline."""

    def __init__(self, folder: Path, options: argparse.Namespace, dtype: torch.dtype) -> None:
        self.pipe = transformers.pipeline(options.task, model=str(folder), dtype=dtype, device=options.device)

    def default(self, inputs: Sequence[Any]) -> Answers:
        """Answer as the pipeline does by itself."""
        return [self.pipe(item) for item in inputs]

    def best(self, inputs: Sequence[Any], order: Sequence[int], batch_size: int, attention: str) -> Answers:
        """Answer in batches of texts sorted by length; the answers stand in the order of the texts."""
        self.pipe.model.set_attn_implementation(attention)
        answers: Answers = [None] * len(inputs)
        for place, answer in zip(order, self.pipe([inputs[i] for i in order], batch_size=batch_size), strict=True):
            answers[place] = answer
        return answers


def longest_first(tokenizer: Tokenizer, inputs: Sequence[Any]) -> list[int]:
    """Return the texts' numbers, longest first; nobody's time counts it."""
    lengths = [
        len(tokenizer.encode(**item)) if isinstance(item, dict) else len(tokenizer.encode(item)) for item in inputs
    ]
    return sorted(range(len(inputs)), key=lambda index: -lengths[index])


def label(answer: Any) -> Any:
    """Return the best answer to one text, without its score."""
    best = answer[0] if isinstance(answer, list) else answer
    return best.get("token", best.get("label"))


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.inference", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, help="folder with nli/xnli and tokenizer/xlmr; without: the sample")
    parser.add_argument("--task", choices=MODELS, default="fill-mask")
    parser.add_argument("--limit", type=int, default=512, help="texts")
    parser.add_argument("--part", type=int, default=128, help="texts per turn")
    parser.add_argument("--shape", choices=SHAPES, default="8x512")
    parser.add_argument("--device", default="cuda:0" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--batch-sizes", default="8,16,32,64", help="the peer takes the fastest")
    parser.add_argument("--tokens-per-batch", type=int, default=8192, help="ours")
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and return 1 if the two disagree in float32."""
    options = parse(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    now, before = clock(options.clock, device), machine(device)
    pairs, tokenizer_file, origin = read_pairs(options.data, options.limit)
    inputs, tokenizer = inputs_of(options.task, pairs), Tokenizer.from_path(tokenizer_file)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder, options, tokenizer)
        ours = pipeline(
            options.task, folder, dtype="bfloat16", device=options.device, tokens_per_batch=options.tokens_per_batch
        )
        peer = Peer(folder, options, torch.bfloat16)
        parts = [inputs[first : first + options.part] for first in range(0, len(inputs), options.part)]
        best = tune(options, peer, parts[0], longest_first(tokenizer, parts[0]), now)
        ours(parts[0][:2])
        rows, ratios = measure(parts, ours, peer, best, tokenizer, now)
        exact = pipeline(options.task, folder, dtype="float32", device=options.device)
        reference = Peer(folder, options, torch.float32).default(parts[0])
        equal = [label(mine) == label(theirs) for mine, theirs in zip(exact(parts[0]), reference, strict=True)]
    print(f"\n{options.task}, {options.shape}, {len(tokenizer):,} tokens, bf16, {origin}; texts per second")
    print(describe(before) + "\n")
    header = ["part", "ours", f"peer, sorted, batch {best[0]}, {best[1]}", "peer, default", "ours / best",
              "ours / default"]  # fmt: skip
    print(table(header, rows))
    for kind, values in ratios.items():
        print(f"median: {statistics.median(values):.2f} times the peer's {kind}")
    print(f"in float32 {sum(equal)} of {len(equal)} answers are equal")
    if options.json:
        write_json(options.json, {"machine": before, "ratios": ratios, "equal": sum(equal), "compared": len(equal)})
    return 0 if all(equal) else 1


def tune(
    options: argparse.Namespace, peer: Peer, inputs: Sequence[Any], order: Sequence[int], now: Callable[[], float]
) -> tuple[int, str]:
    """Return the peer's fastest batch size and attention."""
    peer.best(inputs[:4], range(min(4, len(inputs))), 4, "eager")
    choices = [(int(size), name) for size in options.batch_sizes.split(",") for name in ("eager", "sdpa")]
    seconds = {choice: timed(lambda c=choice: peer.best(inputs, order, *c), now) for choice in choices}  # type: ignore[misc]
    for choice, spent in sorted(seconds.items(), key=lambda item: item[1]):
        print(f"peer, batch {choice[0]}, {choice[1]}: {len(inputs) / spent:,.1f} texts/s", file=sys.stderr)
    return min(seconds, key=seconds.__getitem__)


def measure(
    parts: Sequence[Sequence[Any]], ours: Any, peer: Peer, best: tuple[int, str], tokenizer: Tokenizer,
    now: Callable[[], float],
) -> tuple[list[list[str]], dict[str, list[float]]]:  # fmt: skip
    """Take turns over the parts; return the table's rows and the ratios of each."""
    rows: list[list[str]] = []
    ratios: dict[str, list[float]] = {"best": [], "default": []}
    for number, part in enumerate(parts):
        order, few = longest_first(tokenizer, part), list(part)[::DEFAULT_SHARE]
        mine = len(part) / timed(lambda p=part: ours(list(p)), now)  # type: ignore[misc]
        theirs = len(part) / timed(lambda p=part, o=order: peer.best(p, o, *best), now)  # type: ignore[misc]
        default = len(few) / timed(lambda f=few: peer.default(f), now)  # type: ignore[misc]
        ratios["best"].append(mine / theirs)
        ratios["default"].append(mine / default)
        rates = [f"{rate:,.1f}" for rate in (mine, theirs, default)]
        rows.append([str(number + 1), *rates, f"{mine / theirs:.2f}", f"{mine / default:.2f}"])
    return rows, ratios


if __name__ == "__main__":
    sys.exit(main())
