"""Every setting of a run: its name, type, default, unit and rule.

YAML files under `conf/` and `recipes/` are differences from these defaults. A key's help text stands in its
metadata, so that `--help` and the documentation cannot drift from the code. Nothing here imports torch or Hydra. What a
value must be, alone and beside others, stands in `checks/`.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from xlmrxl_train.errors import ConfigError

T = TypeVar("T")


def key(default: T, text: str) -> T:
    """Declare a key with its default and its help text."""
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"help": text})
    return field(default=default, metadata={"help": text})


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """The encoder: its weights, or its shape when it starts from random weights."""

    name: str = key("tiny", "what reports call it")
    path: str | None = key(None, "Hub id, folder of weights, or run folder; null: random weights of the shape below")
    revision: str | None = key(None, "commit or tag on the Hub")
    suggested_lr: float = key(1e-5, "peak learning rate that suits this model; optimizer.lr is this unless it is set")
    embeddings: str = key(
        "auto",
        "auto | trainable | active | frozen; active: only the words that the training set has, with the same result; "
        "frozen: neither words nor positions; auto: active where the result is the same, else trainable",
    )
    attn_implementation: str = key("auto", "auto | grouped | sdpa | varlen | eager; auto: by device")
    vocab_size: int | None = key(None, "rows of the embedding; null: the tokenizer's size")
    hidden_size: int | None = key(None, "width")
    num_hidden_layers: int | None = key(None, "layers")
    num_attention_heads: int | None = key(None, "heads per layer")
    intermediate_size: int | None = key(None, "width of the feed-forward layer")
    max_position_embeddings: int | None = key(None, "positions, 2 of them unusable: 514 for 512 tokens")
    hidden_dropout_prob: float | None = key(None, "dropout on hidden states; null: the checkpoint's, else 0.1")
    attention_probs_dropout_prob: float | None = key(None, "dropout on attention; null: the checkpoint's, else 0.1")
    classifier_dropout: float | None = key(None, "dropout in the task head; null: hidden_dropout_prob")
    layer_norm_eps: float | None = key(None, "epsilon of layer norms; null: the checkpoint's, else 1e-5")
    initializer_range: float | None = key(None, "deviation of new weights; null: the checkpoint's, else 0.02")


@dataclass(kw_only=True, slots=True)
class TokenizerConfig:
    """Which vocabulary turns text into ids."""

    path: str | None = key(
        None,
        "tokenizer.json (also .gz), sentencepiece.bpe.model, a folder or Hub id; null: model.path's, else the sample's",
    )
    revision: str | None = key(None, "commit or tag on the Hub")


@dataclass(kw_only=True, slots=True)
class FileSet:
    """Some rows of one split: files of one format, one per language or one with a language column."""

    path: str = key("", "below data.root; {language} stands for the language's code; * for any text")
    parallel: dict[str, str] = key(
        {},
        "instead of path: column -> text file, line n of each belonging to line n of the others; with format=tsv, csv, "
        "jsonl or parquet: name -> table, whose columns are then <name>.<column>",
    )
    format: str = key(
        "auto", "tsv | csv | jsonl | parquet | conll | conllu | squad | text | bucc | udhr; auto: by suffix, also .gz"
    )
    header: bool = key(True, "whether the first row of a tsv or csv names the columns")
    column_names: list[str] = key([], "names of the columns where there is no header")
    separator: str | None = key(None, "null: tab for tsv, comma for csv")
    quoting: bool | None = key(None, "whether double quotes enclose fields; null: csv yes, tsv no")
    columns: dict[str, str] = key({}, "role -> column, where it differs from dataset.columns")
    languages: list[str] = key([], "the languages these files hold; empty: all of the data set's")
    part: list[float] = key([], "[0.0, 0.5] takes the first half of the rows; empty: all")
    translated: bool = key(False, "whether a machine translated them into the language; reports say translate-train")
    stand_in: str | None = key(None, "why this is not the official split; stamped on every report that used it")


@dataclass(kw_only=True, slots=True)
class FilesConfig:
    """Where the splits of a data set lie as files."""

    train: list[FileSet] = key([], "files of the training split")
    validation: list[FileSet] = key([], "files of the validation split")
    test: list[FileSet] = key([], "files of the test split")


@dataclass(kw_only=True, slots=True)
class HubConfig:
    """Where a data set lies on the Hub, in parquet."""

    repository: str = key("", "owner/name")
    revision: str = key("main", "commit, so that scores stay comparable")
    configuration: str = key(
        "{language}", "{language} stands for the language's code, {language_name} for its English name"
    )
    language_names: dict[str, str] = key({}, "code -> name, where the Hub's name of a language is another")
    train: str | None = key("train", "the Hub's name of the split, or a part of it: train[:99%]; null: there is none")
    validation: str | None = key("validation", "likewise")
    test: str | None = key("test", "likewise")
    missing: dict[str, list[str]] = key({}, "split -> languages that have none: {validation: [th]}")
    translated: list[str] = key([], "languages into which a machine translated the training split")
    columns: dict[str, str] = key({}, "role -> column, where it differs from dataset.columns")
    id_prefixes: dict[str, str] = key(
        {}, "language -> how the ids of its rows begin, where one configuration holds all and no column says which"
    )


@dataclass(kw_only=True, slots=True)
class DatasetConfig:
    """One data set of a known kind: where it lies, what its columns and labels mean, which languages it has."""

    name: str = key("", "as reports write it")
    kind: str = key("", "the task that reads it: sequence_classification, masked_language_modelling, ...")
    languages: list[str] = key([], "codes as the data set writes them")
    columns: dict[str, str] = key(
        {},
        "role -> column, {language} allowed; roles of a classification are text, text_pair, label; of words' labels "
        "tokens, tags; of question answering context, question, answers",
    )
    language_column: str | None = key(None, "the column with the language, where one file holds several")
    id_column: str | None = key(None, "the column with the example's id; null: its row number")
    labels: list[str] = key([], "class names in the order of their ids")
    label_values: dict[str, str] = key({}, "a label as the files write it -> class name, where they differ")
    skip_labels: list[str] = key([], "rows with these labels are left out (XNLI's '-')")
    templates: dict[str, str] = key(
        {},
        "multiple choice: text of {context} and {question}, text_pair of {choice} and maybe {question}; left out: "
        "context and question beside the choice",
    )
    metrics: list[str] = key([], "the first one selects the checkpoint; empty: the task's")
    hub: HubConfig | None = key(None, "where it lies on the Hub")
    files: FilesConfig | None = key(None, "where it lies below data.root")
    sample: FilesConfig | None = key(None, "where a stand-in lies inside the package")
    citation: str = key("", "paper and address")
    license: str = key("", "of the data")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Where rows come from, and where what is made of them is kept."""

    source: str = key("auto", "auto | hub | files | sample; auto: files where data.root is set, else hub, else sample")
    root: str | None = key(None, "folder of the data set's files")
    limit: int | None = key(None, "examples per split and language, the first ones; null: all")
    cache: str | None = key(None, "folder of tokenised data; null: $XLMRXL_CACHE, else ~/.cache/xlmrxl_train")


@dataclass(kw_only=True, slots=True)
class TaskConfig:
    """The kind of problem; each kind has its own class below."""

    kind: str = key("", "set by the choice of task")
    max_length: int = key(512, "tokens per sequence, special ones included; longer texts are truncated")


@dataclass(kw_only=True, slots=True)
class SequenceClassificationConfig(TaskConfig):
    """One label, several labels, or a number for a text or a pair of texts."""

    kind: str = key("sequence_classification", "set by the choice of task")
    problem_type: str = key(
        "single_label_classification",
        "single_label_classification | multi_label_classification | regression, the Hub's names; of several labels "
        "those with a logit above 0 are predicted; numbers are learnt as they are written, so scale large ones before",
    )
    class_weights: list[float] = key([], "one weight per class in the loss; empty: all 1")


@dataclass(kw_only=True, slots=True)
class MultipleChoiceConfig(TaskConfig):
    """Which of a few choices answers a question about a context; of a text too long the context is cut."""

    kind: str = key("multiple_choice", "set by the choice of task")


@dataclass(kw_only=True, slots=True)
class TokenClassificationConfig(TaskConfig):
    """One label for every word of a sentence."""

    kind: str = key("token_classification", "set by the choice of task")
    long: str = key(
        "split",
        "split | truncate; split: a sentence of more than max_length - 3 sub-words becomes several sequences, whose "
        "tags are joined again; truncate: words beyond the first of them are not read and count as predicted O",
    )


@dataclass(kw_only=True, slots=True)
class LanguageModellingConfig(TaskConfig):
    """What the two kinds of language modelling have in common."""

    join: str = key(
        "none",
        "none | lines | documents; none: a row is a sequence, cut at max_length; lines: consecutive rows are joined "
        "into sequences of up to max_length, a blank row ends a document; documents: the lines of rows are, each row "
        "being a document",
    )


@dataclass(kw_only=True, slots=True)
class MaskedLanguageModellingConfig(LanguageModellingConfig):
    """Predict hidden tokens of a text, or of a sentence and its translation (the role text_pair) in one sequence."""

    kind: str = key("masked_language_modelling", "set by the choice of task")
    mask_probability: float = key(0.15, "share of tokens to predict; of these 80 % are masked, 10 % random, 10 % kept")
    whole_word: bool = key(False, "predict all pieces of a word or none; in scripts without spaces a piece is a word")


@dataclass(kw_only=True, slots=True)
class CausalLanguageModellingConfig(LanguageModellingConfig):
    """Predict each token of a text from those before it."""

    kind: str = key("causal_language_modelling", "set by the choice of task")


@dataclass(kw_only=True, slots=True)
class QuestionAnsweringConfig(TaskConfig):
    """Find the answer to a question in a text, as a span of its tokens."""

    kind: str = key("question_answering", "set by the choice of task")
    max_length: int = key(
        384, "tokens of a window: question, a part of the context, special ones; questions stay whole"
    )
    stride: int = key(128, "tokens of the context from the start of a window to the start of the next one")
    n_best: int = key(20, "starts, and ends, of a window that are paired; answers whose probabilities add up to 1")
    max_answer_length: int = key(30, "tokens of the longest answer that is predicted")


@dataclass(kw_only=True, slots=True)
class TranslationConfig(TaskConfig):
    """Translate a text: an encoder reads it, a decoder of the same shape writes."""

    kind: str = key("translation", "set by the choice of task")
    max_length: int = key(512, "tokens of a source, special ones included; longer texts are truncated")
    max_target_length: int = key(
        128, "tokens of a translation, special ones included; longer ones are truncated, and none longer is generated"
    )


@dataclass(kw_only=True, slots=True)
class RetrievalConfig(TaskConfig):
    """Find translations by the nearness of sentence vectors; nothing is trained."""

    kind: str = key("retrieval", "set by the choice of task")
    layer: int | None = key(
        None, "whose states make the vectors, as the Hub's hidden_states; null: 7/12 of the way up, 21 of XL's 36"
    )
    pooling: str = key("mean", "mean | first; mean: of all tokens, special ones included; first: of <s>")
    neighbours: int = key(4, "mining: sentences on each side that a pair's cosine is measured against")


@dataclass(kw_only=True, slots=True)
class StrategyConfig:
    """How one model is spread over processes; each strategy has its own class below."""

    name: str = key(
        "auto", "set by the choice of strategy; auto: single, or ddp where a launcher started several ranks"
    )
    device: str = key("auto", "auto | cpu | cuda; auto: cuda where there is one")
    timeout_minutes: float = key(30.0, "a collective that takes longer ends the job")
    watchdog_minutes: float | None = key(
        10.0,
        "when no rank moves for so long, each says where it is and the job ends; at most half of timeout_minutes; "
        "null or 0: never",
    )


@dataclass(kw_only=True, slots=True)
class SingleConfig(StrategyConfig):
    """One process."""

    name: str = key("single", "set by the choice of strategy")


@dataclass(kw_only=True, slots=True)
class DDPConfig(StrategyConfig):
    """A whole copy of the model in every process, gradients averaged."""

    name: str = key("ddp", "set by the choice of strategy")
    bucket_mb: float = key(25.0, "megabytes of gradients reduced together")


@dataclass(kw_only=True, slots=True)
class FSDP2Config(StrategyConfig):
    """Rows of every parameter, gradient and moment divided over the ranks by torch."""

    name: str = key("fsdp2", "set by the choice of strategy")
    shard_size: int | None = key(
        None, "ranks that share one model, each group of them holding a whole one, as the GPUs of a machine; null: all"
    )
    reshard_after_forward: bool = key(True, "let go of a layer between forward and backward; false: ZeRO-2's memory")
    prefetch_layers: int = key(1, "layers that are gathered while one runs")
    offload: bool = key(False, "keep parameters, gradients and moments in host memory; the optimizer runs there")
    pin_memory: bool = key(True, "offload: page-locked host memory, which copies faster and cannot be swapped")


@dataclass(kw_only=True, slots=True)
class ZeroConfig(StrategyConfig):
    """What the stages of DeepSpeed's ZeRO have in common."""

    reduce_bucket_mb: float = key(500.0, "megabytes of gradients (float32) reduced together")
    allgather_bucket_mb: float = key(500.0, "megabytes of parameters gathered together; stages 1 and 2")
    overlap_comm: bool = key(True, "reduce gradients while backward goes on")
    deepspeed: dict[str, Any] = key(
        {},
        "any other key of DeepSpeed, nested as there: {zero_optimization: {round_robin_gradients: true}}",
    )


@dataclass(kw_only=True, slots=True)
class Zero1Config(ZeroConfig):
    """Moments and float32 weights divided over the ranks."""

    name: str = key("zero1", "set by the choice of strategy")


@dataclass(kw_only=True, slots=True)
class Zero2Config(ZeroConfig):
    """Gradients divided too."""

    name: str = key("zero2", "set by the choice of strategy")


@dataclass(kw_only=True, slots=True)
class Zero3Config(ZeroConfig):
    """Parameters divided too."""

    name: str = key("zero3", "set by the choice of strategy")
    prefetch_mb: float = key(100.0, "megabytes of parameters gathered ahead of their use")
    persistence_kb: float = key(200.0, "parameters up to this size stay whole on every rank")
    max_live_mb: float = key(2000.0, "megabytes of gathered parameters at a time")
    max_reuse_distance_mb: float = key(2000.0, "keep a parameter that is used again within so many megabytes")
    hierarchical_size: int = key(
        1, "ZeRO++: ranks that share a second copy of the parameters, as the GPUs of a machine; 1: none"
    )
    quantized_weights: bool = key(False, "ZeRO++: gather parameters in int8; changes results")
    quantized_gradients: bool = key(False, "ZeRO++: reduce gradients in int4; changes results")


@dataclass(kw_only=True, slots=True)
class Zero3OffloadConfig(Zero3Config):
    """ZeRO-3 with parameters, moments and the optimizer's work in host memory."""

    name: str = key("zero3_offload", "set by the choice of strategy")
    offload_parameters: bool = key(True, "false: moments and float32 weights only")
    pin_memory: bool = key(True, "page-locked host memory, which copies faster and cannot be swapped")


@dataclass(kw_only=True, slots=True)
class Zero3NvmeConfig(Zero3OffloadConfig):
    """ZeRO-3 with moments and float32 weights on a local disk."""

    name: str = key("zero3_nvme", "set by the choice of strategy")
    nvme_path: str | None = key(None, "folder on a fast local disk, for one run alone; must be given")
    sub_group_mb: float = key(
        1000.0, "megabytes of float32 weights read, moved and written together; 4 times as much memory is page-locked"
    )
    offload_parameters: bool = key(False, "parameters in host memory; false: on the device")


@dataclass(kw_only=True, slots=True)
class TuningConfig:
    """Which parameters learn; each choice has its own class below. The task's head always does."""

    name: str = key("full", "set by the choice of tuning")
    suggested_lr: float = key(1e-5, "peak learning rate that suits it; optimizer.lr is this unless it is set")


@dataclass(kw_only=True, slots=True)
class BiasTuningConfig(TuningConfig):
    """The biases of layers and norms (BitFit)."""

    name: str = key("bias", "set by the choice of tuning")


@dataclass(kw_only=True, slots=True)
class HeadTuningConfig(TuningConfig):
    """The head alone."""

    name: str = key("head", "set by the choice of tuning")


@dataclass(kw_only=True, slots=True)
class LastLayersTuningConfig(TuningConfig):
    """The last layers and the norm after them."""

    name: str = key("last_layers", "set by the choice of tuning")
    layers: int = key(4, "how many")


@dataclass(kw_only=True, slots=True)
class LoraTuningConfig(TuningConfig):
    """A product of two small matrices added to each large one (LoRA)."""

    name: str = key("lora", "set by the choice of tuning")
    rank: int = key(16, "columns and rows of the small matrices")
    alpha: int = key(32, "their product is scaled by alpha / rank; under rslora by alpha / sqrt(rank)")
    dropout: float = key(0.05, "on what the small matrices read")
    targets: list[str] = key(
        ["query", "key", "value", "attention_output", "intermediate", "output"],
        "matrices of every layer that get one: query | key | value | attention_output | intermediate | output",
    )
    weights: str | None = key(
        None, "null | int8 | nf4: how the matrices below are held, which do not learn; null: in train.precision"
    )
    merge: bool = key(
        True,
        "write <run>/model, the whole model with the products added; false: <run>/adapter alone, some megabytes, which "
        "every command reads together with model.path",
    )


@dataclass(kw_only=True, slots=True)
class DoraTuningConfig(LoraTuningConfig):
    """LoRA, and a learned length of every row (DoRA)."""

    name: str = key("dora", "set by the choice of tuning")


@dataclass(kw_only=True, slots=True)
class RsloraTuningConfig(LoraTuningConfig):
    """LoRA whose scale suits any rank (rank-stabilised)."""

    name: str = key("rslora", "set by the choice of tuning")
    alpha: int = key(8, "the product is scaled by alpha / sqrt(rank)")


@dataclass(kw_only=True, slots=True)
class OptimizerConfig:
    """How gradients move weights."""

    name: str = key(
        "adamw",
        "adamw | adamw_8bit; adamw: fused; adamw_8bit: torchao's, moments of matrices in a byte per element, with "
        "strategy=single, ddp or fsdp2",
    )
    lr: float = key(1e-5, "peak learning rate")
    betas: list[float] = key([0.9, 0.98], "decay of the two moments")
    eps: float = key(1e-6, "added to the root of the second moment")
    weight_decay: float = key(0.1, "not on biases, norms and embeddings")
    head_lr: float | None = key(None, "peak learning rate of what stands above the encoder; null: lr")
    layer_decay: float = key(1.0, "layer i of n has lr * layer_decay^(n - i), the embeddings the power n + 1")
    unfreeze_after: float = key(0.0, "epochs, or a part of one, in which only what stands above the encoder moves")
    unfreeze_every: float | None = key(
        None, "epochs between one layer and the next below it, from unfreeze_after on; null: all at once"
    )


@dataclass(kw_only=True, slots=True)
class ScheduleConfig:
    """The learning rate as a function of the step and of nothing else."""

    name: str = key("linear", "linear | cosine | constant, after warm-up")
    warmup: float = key(0.06, "below 1: share of all steps; from 1: optimizer steps")
    final: float = key(0.0, "share of the peak rate at the end; linear and cosine go down to it")


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """The loop."""

    languages: list[str] = key(
        ["en"], "languages to train on; [all]: every language of the data set; []: on shots alone"
    )
    shots: int = key(0, "few-shot: labelled examples to train on in each of shot_languages, drawn by the seed")
    shot_languages: list[str] = key(
        [], "of the evaluated data set; empty: the evaluated languages that are not trained on in whole"
    )
    shot_split: str = key(
        "auto",
        "auto | train | validation, what shots are drawn from; auto: the training split where the language has one; "
        "shots from validation are left out of it when it is scored, in every language",
    )
    sampling_temperature: float = key(
        1.0,
        "T: of n examples in a data set and language, an epoch has a share by n^(1/T); 1: each once; above 1: those of "
        "small tables again and again, of large ones a part; XLM-R's alpha is 1/T, 0.3 there",
    )
    epochs: float = key(3.0, "passes over the training data")
    max_steps: int | None = key(None, "optimizer steps; null: as many as train.epochs needs")
    batch_size: int = key(32, "examples per optimizer step, over all ranks")
    tokens_per_micro_batch: int | Literal["auto"] = key(
        8192, "tokens that one rank holds at a time; a step is cut into as many as needed; auto: as many as fit"
    )
    precision: str = key("bf16", "bf16 | fp32; bf16: matrix products only, the rest float32")
    matmul: str = key(
        "bf16",
        "bf16 | fp8; fp8: factors of the layers' products in training, by torchao, on GPUs that have it; each is "
        "scaled by its largest value in a micro-batch, so results depend on the cut",
    )
    recompute: str = key(
        "none",
        "none | full | every_<n> | selective | auto; full: keep no activations, run each layer twice; every_2: every "
        "second layer; selective: keep matrix products, compute the rest twice; auto: as few layers as fit",
    )
    compile: bool = key(
        False,
        "torch.compile each layer but for attention itself in training: rounds otherwise, compiles at the first step",
    )
    max_grad_norm: float = key(1.0, "gradients are scaled down to this norm; 0: never")
    checkpoint_every: int | None = key(None, "optimizer steps; null: only at the end")
    checkpoint_in_background: bool = key(
        True, "train on while a checkpoint is written from a copy in host memory; where that has no room, train waits"
    )
    keep_checkpoints: int = key(1, "how many of the latest checkpoints stay")
    max_skipped: int = key(10, "steps in a row with a loss or gradient that is not finite, after which the run ends")
    patience: int | None = key(
        None,
        "early stopping: looks at the validation split in a row without a better selection score, after which training "
        "ends; null: never",
    )
    min_delta: float = key(0.0, "early stopping: better is better by more than this, as metrics.jsonl writes the score")
    max_hours: float | None = key(None, "save and stop after this time; null: never")
    log_every: int = key(10, "optimizer steps between lines of metrics.jsonl and of the console")
    save_model: bool = key(True, "write the final weights to <run>/model")
    profile: bool = key(False, "time the phases of a step, trace a few steps; written to <run>/profile")


@dataclass(kw_only=True, slots=True)
class EvaluateConfig:
    """When and on what the model is scored."""

    languages: list[str] = key(
        [], "languages to score; empty: every language of the data set whose test split the source has"
    )
    every: int | None = key(
        None, "optimizer steps between looks at the validation split; null: once per epoch; 0: never"
    )
    select: str = key("best", "best | last; best: the checkpoint with the best validation score in select_languages")
    select_languages: list[str] = key([], "languages that select the checkpoint; empty: the training languages")
    test: bool = key(True, "score the test split once at the end")
    tokens_per_batch: int = key(16384, "tokens per forward pass on one rank")
    bootstrap: int = key(1000, "resamples for the 95 % interval")
    predictions: bool = key(True, "write every test prediction to <run>/predictions/<language>.jsonl")
    html: bool = key(True, "write the report also as <run>/report.html, a page of 2 MB that needs no network")
    submission: str | None = key(
        None, "xtreme: write test predictions also as XTREME's evaluate.py reads them, to <run>/submission; null: no"
    )


@dataclass(kw_only=True, slots=True)
class TrackerConfig:
    """Where metrics go beside metrics.jsonl."""

    names: list[str] = key(
        [], "wandb | tensorboard | mlflow | trackio, or several: tracker=[wandb,mlflow]; empty: none"
    )
    project: str = key("xlmrxl_train", "what gathers runs: a project of wandb and trackio, an experiment of MLflow")
    entity: str | None = key(None, "wandb: user or team that owns the project; null: who is logged in")
    mode: str = key("offline", "wandb: online | offline | disabled; offline: kept in <run>/wandb for `wandb sync`")
    group: str | None = key(
        None, "runs of one group are shown together; null: the recipe's name, and what a sweep varies"
    )
    tags: list[str] = key([], "words to find the run by, beside its seed")
    mlflow_uri: str | None = key(
        None, "MLflow's tracking server or store; null: $MLFLOW_TRACKING_URI, else a SQLite file in <run>/mlflow"
    )
    trackio_dir: str | None = key(
        None, "folder of trackio's store; null: $TRACKIO_DIR, else trackio's own, of the user"
    )


@dataclass(kw_only=True, slots=True)
class PlanConfig:
    """What `xlmrxl plan` is asked about; a run itself looks at the machine that it is on."""

    hardware: str = key("auto", "of each machine: 8xA100-80GB, H200, 4xcpu, ...; auto: this machine's")
    nodes: int = key(1, "machines")
    efficiency: float | None = key(
        None, "share of the matrix peak that is reached; null: that of this machine's last run, else 0.4"
    )
    length: float | None = key(
        None, "tokens of an example on average, where the training data is not here; null: real XNLI pairs'"
    )
    examples: int | None = key(None, "of the training set, where it is not here; null: not known, or XNLI's")


@dataclass(kw_only=True, slots=True)
class RunConfig:
    """Where a run lives."""

    recipe: str = key("", "set by the choice of recipe")
    name: str = key("seed-${seed}", "name of the run's folder")
    dir: str = key("runs/${run.recipe}/${run.name}", "the run's folder")
    resume: str = key("auto", "auto | never | a checkpoint folder; auto: go on where the run in run.dir stopped")


@dataclass(kw_only=True, slots=True)
class Config:
    """A whole run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    task: TaskConfig = field(default_factory=TaskConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    mixture: dict[str, DatasetConfig] = key(
        {}, "data sets to train on in place of dataset's training split: name -> data set; mixture.<name>=<data set>"
    )
    data: DataConfig = field(default_factory=DataConfig)
    strategy: StrategyConfig = field(default_factory=StrategyConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    run: RunConfig = field(default_factory=RunConfig)
    seed: int = key(1, "of data order, dropout, masks and new weights")


# The classes that a choice of these groups selects; a key of another choice is refused.
VARIANTS: dict[str, dict[str, type]] = {
    "task": {
        "sequence_classification": SequenceClassificationConfig,
        "masked_language_modelling": MaskedLanguageModellingConfig,
        "causal_language_modelling": CausalLanguageModellingConfig,
        "question_answering": QuestionAnsweringConfig,
        "token_classification": TokenClassificationConfig,
        "retrieval": RetrievalConfig,
        "multiple_choice": MultipleChoiceConfig,
        "translation": TranslationConfig,
    },
    "strategy": {
        "auto": StrategyConfig,
        "single": SingleConfig,
        "ddp": DDPConfig,
        "fsdp2": FSDP2Config,
        "zero1": Zero1Config,
        "zero2": Zero2Config,
        "zero3": Zero3Config,
        "zero3_offload": Zero3OffloadConfig,
        "zero3_nvme": Zero3NvmeConfig,
    },
    "tuning": {
        "full": TuningConfig,
        "lora": LoraTuningConfig,
        "dora": DoraTuningConfig,
        "rslora": RsloraTuningConfig,
        "bias": BiasTuningConfig,
        "head": HeadTuningConfig,
        "last_layers": LastLayersTuningConfig,
    },
}

# Keys that may differ between the sessions of one run: they change where and how fast it runs, not what it computes.
FREE = (
    "run.",
    "data.root",
    "data.cache",
    "strategy.",
    "tracker.",
    "plan.",
    "tuning.merge",
    "tuning.suggested_lr",
    "tokenizer.path",  # its content is compared through environment.json
    "model.attn_implementation",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.max_hours",
    "train.profile",
    "train.max_skipped",
    "train.log_every",
    "train.recompute",
    "train.save_model",
    "train.tokens_per_micro_batch",
    "evaluate.tokens_per_batch",
    "evaluate.bootstrap",
    "evaluate.predictions",
    "evaluate.html",
    "evaluate.submission",
)


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every key below `config` with its value: ("train.batch_size", 32)."""
    for item in fields(config):
        value, name = getattr(config, item.name), f"{prefix}{item.name}"
        if is_dataclass(value):
            yield from leaves(value, f"{name}.")
        elif isinstance(value, dict) and value and all(is_dataclass(inner) for inner in value.values()):
            for inner_name, inner in value.items():
                yield from leaves(inner, f"{name}.{inner_name}.")
        else:
            yield name, value


def lengths_of(task: TaskConfig) -> dict[str, int]:
    """Return the keys that say how many tokens a sequence may have, with their values."""
    lengths = {"task.max_length": task.max_length}
    if isinstance(task, TranslationConfig):
        lengths["task.max_target_length"] = task.max_target_length
    return lengths


def to_dict(config: Config) -> dict[str, Any]:
    """Return plain dictionaries, lists and scalars, as config.yaml holds them."""
    return asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """Read back what `to_dict` wrote.

    Raises:
        ConfigError: A key is unknown (the file is from another version or was edited).
    """
    return _build(Config, values, "")  # type: ignore[no-any-return]


def _build(kind: type, values: dict[str, Any], prefix: str) -> Any:
    known = {item.name: item for item in fields(kind)}
    if unknown := [f"{prefix}{name}" for name in values if name not in known]:
        raise ConfigError(*(f"{name} is not a key of this version. Remove it." for name in unknown))
    hints = get_type_hints(kind)
    return kind(**{name: _value(hints[name], value, f"{prefix}{name}") for name, value in values.items()})


def _value(hint: Any, value: Any, name: str) -> Any:
    candidates = [hint, *get_args(hint)]
    inner: Any = next((candidate for candidate in candidates if is_dataclass(candidate)), None)
    if inner is None or value is None:
        return value
    if get_origin(hint) is dict:
        return {inner_name: _build(inner, item, f"{name}.{inner_name}.") for inner_name, item in value.items()}
    if isinstance(value, list):
        return [_build(inner, item, f"{name}.{index}.") for index, item in enumerate(value)]
    variants = VARIANTS.get(name, {})
    choice = value.get("kind" if name == "task" else "name")
    return _build(variants.get(choice, inner), value, f"{name}.")
