"""What a run says of itself: what is about to be trained, how scores came about, the scores."""

import math
from dataclasses import asdict, replace

from xlmrxl_train.config import LastLayersTuningConfig, LoraTuningConfig, TrainConfig, TuningConfig
from xlmrxl_train.evaluation.numbers import number
from xlmrxl_train.evaluation.protocol import Protocol
from xlmrxl_train.evaluation.report import Report
from xlmrxl_train.evaluation.scores import LanguageScore
from xlmrxl_train.metrics import load as load_metric
from xlmrxl_train.parallel import Strategy
from xlmrxl_train.session import Session
from xlmrxl_train.track.json_lines import JsonLines
from xlmrxl_train.track.secrets import redact
from xlmrxl_train.training.batches import StepBatches
from xlmrxl_train.training.state import TrainState
from xlmrxl_train.training.trainer import total_steps
from xlmrxl_train.training_sets import TrainingSet

Scores = dict[str, LanguageScore]


def log_scores(
    session: Session,
    metrics: JsonLines | None,
    scores: Scores,
    *,
    step: int,
    split: str,
    selection: float | None = None,
) -> None:
    """Write one line per language to metrics.jsonl, and the selection score if there is one; and a line for people."""
    if metrics is None:
        return
    for code, score in scores.items():
        metrics.log("evaluate", {"step": step, "split": split, "language": code, **score.values, "n": score.n})
    if selection is not None:
        metrics.log("selection", {"step": step, "metric": session.task.metrics[0], "score": selection})
    report = Report(
        protocol=protocol(session, split, TrainState(), 0, selecting=False),
        languages=scores,
        metrics=session.task.metrics,
    )
    averages = report.averages()
    metrics.log("averages", {"step": step, "split": split, **averages})
    metric = session.task.metrics[0]
    ordered = sorted(scores, key=lambda code: scores[code].values[metric], reverse=load_metric(metric).HIGHER_IS_BETTER)
    means = [(name.replace("_", " "), averages[metric][name]) for name in ("mean", "transfer_gap")]
    session.console.show_scores(
        f"{metric}, {split}, step {step:,}",
        averages=[(name, number(metric, value)) for name, value in means if value is not None],
        scores=[(code, number(metric, scores[code].values[metric])) for code in ordered],
    )
    values = [score.values[metric] for score in scores.values()]
    chosen = ", ".join(
        f"{code} {scores[code].values[metric]:.3f}" for code in session.select_languages if code in scores
    )
    session.console.say(
        f"step {step} {split} {metric}: {chosen + ', ' if chosen else ''}"
        f"mean over {len(values)} languages {sum(values) / len(values):.3f}"
    )


def selection_score(session: Session, scores: Scores) -> float | None:
    """Return the mean of the first metric over the selection languages, signed so that higher is better."""
    metric = session.task.metrics[0]
    values = [scores[code].values[metric] for code in session.select_languages if code in scores]
    if not values or any(math.isnan(value) for value in values):
        return None
    return (1 if load_metric(metric).HIGHER_IS_BETTER else -1) * sum(values) / len(values)


def protocol(session: Session, split: str, state: TrainState, selected: int, selecting: bool) -> Protocol:
    """Return how the scores of this session's run came about."""
    config = session.config
    used = [(training.source, "train", training.languages) for training in session.training_sets]
    used += [(session.source, name, [code]) for code, name in session.shot_splits().items()]
    used += [(session.source, split, session.evaluate_languages)]
    used += [(session.source, "validation", session.select_languages)] if selecting else []
    stand_ins = [
        text for source, part, languages in used for code in languages for text in source.stand_ins(part, code)
    ]
    stand_ins += [text for parent in session.parents for text in parent["stand_ins"]]
    return Protocol(
        recipe=config.run.recipe,
        model=redact(config.model.path or config.model.name),
        kind=config.task.kind,
        labelled=session.task.learns_from_labels,
        dataset=config.dataset.name,
        split=split,
        source=session.source.kind,
        train_languages=session.train_languages,
        training=_by_name(session.training_sets),
        translated=[
            code
            for code in session.train_languages
            if any(training.source.translated(code) for training in session.training_sets if code in training.languages)
        ],
        sampling_temperature=config.train.sampling_temperature,
        shots={code: asdict(shots) for code, shots in session.shots.items()},
        select_split="validation" if selecting else None,
        select_languages=session.select_languages if selecting else [],
        select_metric=session.task.metrics[0],
        stand_ins=list(dict.fromkeys(stand_ins)),
        limit=config.data.limit,
        seed=config.seed,
        tuning=_tuning(config.tuning),
        steps=state.step,
        tokens=state.tokens,
        selected_step=selected,
        parents=session.parents,
    )


def ended_early(config: TrainConfig, state: TrainState) -> list[str]:
    """Return what the report says where the validation split has ended training."""
    if config.patience is None or state.patience_used < config.patience:
        return []
    return [
        f"Training ended early, after step {state.step}: no better score in {state.patience_used} looks at the "
        "validation split."
    ]


def evaluated_again(session: Session, trained: Protocol) -> Protocol:
    """Return the protocol of a run whose model is evaluated in this session, perhaps on another data set."""
    tested = [text for code in session.evaluate_languages for text in session.source.stand_ins("test", code)]
    return replace(
        trained,
        dataset=session.config.dataset.name,
        source=session.source.kind,
        split="test",
        limit=session.config.data.limit,
        stand_ins=list(dict.fromkeys([*trained.stand_ins, *tested])),
    )


def introduce(session: Session, strategy: Strategy, batches: StepBatches) -> None:
    """Say what is about to be trained, on what, for how long."""
    total = sum(shape.numel() for shape in strategy.shapes.values())
    trainable = sum(strategy.shapes[name].numel() for name in strategy.trainable)
    steps = total_steps(session.config, batches.steps_per_epoch)
    corpus, filled = batches.corpus, [training for training in session.training_sets if training.languages]
    say = session.console.say
    say(f"run     {session.config.run.dir}")
    name, tuning = session.config.model.path or session.config.model.name, _tuning(session.config.tuning)
    say(f"model   {name}: {total:,} parameters, {trainable:,} trained{f': {tuning}' if tuning else ''}")
    say(
        f"data    {'; '.join(map(_described, filled)) or f'shots of {session.config.dataset.name}'}: "
        f"{len(corpus):,} examples, {int(corpus.sizes.sum()):,} tokens"
    )
    for code, shots in session.shots.items():
        say(f"        {len(shots.ids)} shots of {code}, drawn from its {shots.split} split")
    for text in protocol(session, "test", TrainState(), 0, selecting=True).stand_ins:
        say(f"        stand-in: {text}")
    if session.left_out_languages:
        say(f"        without a test split here, so not scored: {', '.join(session.left_out_languages)}")
    say(
        f"train   {steps:,} steps of {session.config.train.batch_size} examples, {session.config.train.precision}, "
        f"{session.world.size} x {session.world.device.type}, strategy {session.config.strategy.name}"
    )
    if epochs := session.config.optimizer.unfreeze_after:
        say(f"        the encoder is frozen for the first {round(epochs * batches.steps_per_epoch):,}")


def _tuning(tuning: TuningConfig) -> str:
    """Return what learned, in a few words; nothing where all did."""
    if isinstance(tuning, LoraTuningConfig):
        below = "" if tuning.weights is None else f" over {tuning.weights} weights"
        return f"{tuning.name} of rank {tuning.rank}{below}"
    if isinstance(tuning, LastLayersTuningConfig):
        return f"the last {tuning.layers} layers"
    return {"full": "", "bias": "biases", "head": "the head alone"}[tuning.name]


def _by_name(sets: list[TrainingSet]) -> dict[str, list[str]]:
    """Return the languages of each training set, by its name for people; two of one name count as one."""
    languages: dict[str, list[str]] = {}
    for training in sets:
        known = languages.setdefault(training.config.name, [])
        known += [code for code in training.languages if code not in known]
    return {name: codes for name, codes in languages.items() if codes}


def _described(training: TrainingSet) -> str:
    """Return what a training set is called, where it comes from, and in which languages it is read."""
    return f"{training.config.name} ({training.source.kind}) in {', '.join(training.languages)}"
