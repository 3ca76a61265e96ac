"""What is trained: the encoder and its vocabulary."""

from dataclasses import dataclass

from xlmrxl_train.config.keys import key


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
