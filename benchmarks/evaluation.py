"""Our Evaluator over several languages against Trainer.predict at its best, on the same examples.

    python -m benchmarks.evaluation --data ../shared/data --languages en,de,zh,sw --limit 500

The peer gets examples sorted by length, longest first, dynamic padding, and the best of its batch sizes and attention
implementations, chosen beforehand on the first language. The two sides take turns language by language. Both tokenise
beforehand and time everything after: batches, forward passes, predictions, scores. Then every example's prediction is
compared, in float32 on the first language (equal) and in bf16 (nearly: random weights decide by rounding).
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer

from benchmarks.measure import clock, describe, machine, table, timed, write_json
from benchmarks.peer import PaddedRows, arguments, peer_model
from benchmarks.workload import SHAPES, Examples, our_model, our_strategy
from xlmrxl_train import load_config
from xlmrxl_train.data.corpus import Corpus
from xlmrxl_train.evaluation.evaluator import Evaluator
from xlmrxl_train.session import Session
from xlmrxl_train.track.console import Console

ROWS = 250_002


class Peer:
    """transformers' Trainer for prediction."""

    def __init__(self, model: Any, device: torch.device) -> None:
        self.model, self.device = model, device

    def predict(self, examples: Examples, batch_size: int, attention: str, *, bf16: bool = True) -> tuple[Any, float]:
        """Return each example's class, in the order of `examples`, and the accuracy."""
        order = sorted(range(len(examples)), key=lambda index: -len(examples.ids[index]))
        rows = PaddedRows(
            Examples(ids=[examples.ids[index] for index in order], labels=[examples.labels[index] for index in order])
        )
        self.model.set_attn_implementation(attention)
        settings = arguments(
            batch_size, cuda=self.device.type == "cuda", per_device_eval_batch_size=batch_size, bf16=bf16,
            remove_unused_columns=False,
        )  # fmt: skip
        trainer = Trainer(
            model=self.model, args=settings, data_collator=rows.collate,
            compute_metrics=lambda both: {"accuracy": float((both.predictions.argmax(-1) == both.label_ids).mean())},
        )  # fmt: skip
        output = trainer.predict(rows)
        classes = np.empty(len(order), dtype=int)
        classes[order] = output.predictions.argmax(-1)
        return classes, output.metrics["test_accuracy"]


def one_language(corpus: Corpus, table_index: int) -> tuple[Corpus, Examples]:
    """Return one language of a corpus, as a corpus and as the peer's examples."""
    only = Corpus(split=corpus.split, languages=[corpus.languages[table_index]], tables=[corpus.tables[table_index]])
    features = [only.tables[0].features_of(index)[0] for index in range(len(only))]
    return only, Examples(ids=[f.input_ids for f in features], labels=[f.columns["label"] for f in features])


def classes_of(evaluator: Evaluator, corpus: Corpus) -> list[int]:
    """Return our class of each example."""
    predictions = [item for part in evaluator.predictions(corpus) for item in part]
    return [item.prediction for item in sorted(predictions, key=lambda item: item.example)]


def parse(arguments_: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluation", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with nli/xnli and tokenizer/xlmr")
    parser.add_argument("--languages", default="en,fr,es,de,el,bg,ru,tr,ar,vi,th,zh,hi,sw,ur")
    parser.add_argument("--limit", type=int, default=500, help="examples per language")
    parser.add_argument("--shape", choices=SHAPES, default="8x512")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--batch-sizes", default="16,32,64,128", help="the peer takes the fastest")
    parser.add_argument("--tokens-per-batch", type=int, default=16384, help="ours: evaluate.tokens_per_batch")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments_)


def main(arguments_: list[str] | None = None) -> int:
    """Measure, print, and return 1 if the two disagree."""
    options = parse(arguments_)
    if options.threads:
        torch.set_num_threads(options.threads)
    device, languages = torch.device(options.device), options.languages.split(",")
    now, before = clock(options.clock, device), machine(device)
    with tempfile.TemporaryDirectory() as cache:
        config = load_config(
            [
                "recipe=xnli", "model=tiny", f"data.root={options.data}", f"data.limit={options.limit}",
                f"tokenizer.path={options.data / 'tokenizer' / 'xlmr' / 'tokenizer.json.gz'}", f"data.cache={cache}",
                f"evaluate.languages=[{options.languages}]", "run.dir=unused",
            ]
        )  # fmt: skip
        session = Session.open(config)
        corpus = session.corpus("test", languages)
        parts = [one_language(corpus, index) for index in range(len(languages))]
        torch.manual_seed(0)
        ours = our_strategy(our_model(SHAPES[options.shape], ROWS, 0.1), device)
        theirs = peer_model(SHAPES[options.shape], ROWS, 0.1, "eager")
        theirs.load_state_dict(ours.model.state_dict())
        peer = Peer(theirs.to(device), device)
        evaluator = Evaluator(
            strategy=ours, task=session.task, tokens_per_batch=options.tokens_per_batch, resamples=0,
            console=Console(enabled=False),
        )  # fmt: skip
        best = tune(options, peer, parts[0][1], now)
        return compare(options, evaluator, peer, parts, best, now, before)


def tune(options: argparse.Namespace, peer: Peer, examples: Examples, now: Any) -> tuple[int, str]:
    """Return the peer's fastest batch size and attention."""
    peer.predict(examples, 32, "eager")
    choices = [(int(size), name) for size in options.batch_sizes.split(",") for name in ("eager", "sdpa")]
    seconds = {choice: timed(lambda c=choice: peer.predict(examples, *c), now) for choice in choices}
    for choice, spent in sorted(seconds.items(), key=lambda item: item[1]):
        print(f"peer, batch {choice[0]}, {choice[1]}: {sum(examples.lengths) / spent:,.0f} tokens/s", file=sys.stderr)
    return min(seconds, key=seconds.__getitem__)


def compare(
    options: argparse.Namespace, evaluator: Evaluator, peer: Peer, parts: list[tuple[Corpus, Examples]],
    best: tuple[int, str], now: Any, before: dict[str, Any],
) -> int:  # fmt: skip
    """Take turns over the languages, print the table, and compare predictions."""
    rows, ratios, agreements, rates = [], [], [], {"ours": [], "peer": []}
    for _ in range(options.rounds):
        for corpus, examples in parts:
            scores: dict[str, Any] = {}
            ours = timed(lambda c=corpus, s=scores: s.update(ours=evaluator.evaluate(c, intervals=False)), now)
            theirs = timed(lambda e=examples, s=scores: s.update(peer=peer.predict(e, *best)), now)
            classes = classes_of(evaluator, corpus)
            agreement = float((np.array(classes) == scores["peer"][0]).mean())
            tokens, score = sum(examples.lengths), scores["ours"][corpus.languages[0]]
            assert score.n == len(examples)
            ratios.append(theirs / ours)
            agreements.append(agreement)
            rates["ours"].append(tokens / ours)
            rates["peer"].append(tokens / theirs)
            rows.append(
                [corpus.languages[0], f"{score.n}", f"{tokens / ours:,.0f}", f"{tokens / theirs:,.0f}",
                 f"{theirs / ours:.2f}", f"{score.values['accuracy']:.4f}", f"{scores['peer'][1]:.4f}",
                 f"{agreement:.1%}"]
            )  # fmt: skip
    print(f"\n{options.shape}, vocabulary {ROWS:,}, bf16; peer: Trainer.predict, sorted, batch {best[0]}, {best[1]}")
    print(describe(before) + "\n")
    header = ["", "n", "ours tokens/s", "peer tokens/s", "ours / peer", "accuracy", "peer's", "same prediction"]
    print(table(header, rows))
    print(f"\nmedian over languages: {statistics.median(ratios):.2f} times the peer")
    evaluator.strategy.precision = "fp32"  # type: ignore[attr-defined]
    corpus, examples = parts[0]
    exact = classes_of(evaluator, corpus)
    reference, _ = peer.predict(examples, *best, bf16=False)
    equal = float((np.array(exact) == reference).mean())
    print(f"in float32 {equal:.2%} of {len(exact)} predictions in {corpus.languages[0]} are equal")
    if options.json:
        write_json(options.json, {"machine": before, "rates": rates, "ratios": ratios, "float32_equal": equal})
    return 0 if equal == 1.0 and min(agreements) > 0.9 else 1


if __name__ == "__main__":
    sys.exit(main())
