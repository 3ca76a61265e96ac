"""Translation: an encoder, and a causal decoder whose layers also look at the encoder's states.

Suffixes: S packed source tokens, T packed target tokens, B sequences, L padded length, D features, V vocabulary.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from xlmrxl_train.errors import CheckpointError, ConfigError, DataError
from xlmrxl_train.model.base import EncoderInputs, PackedInputs, XLMRobertaXLModel, pack_inputs
from xlmrxl_train.model.cache import KeyValueCache
from xlmrxl_train.model.configuration import XLMRobertaXLConfig, read_config_file
from xlmrxl_train.model.language_models import XLMRobertaXLForCausalLM
from xlmrxl_train.model.losses import IGNORE_INDEX
from xlmrxl_train.model.outputs import ModelOutput
from xlmrxl_train.model.packed import PackedSequences
from xlmrxl_train.model.pretrained import PreTrained
from xlmrxl_train.model.tasks import encode
from xlmrxl_train.model.weights import CheckpointReader, LoadReport, match_weights

MODEL_TYPE = "encoder-decoder"  # what transformers calls the layout of such a folder
_SHAPE = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
          "max_position_embeddings", "type_vocab_size", "pad_token_id")  # fmt: skip


class XLMRobertaXLEncoderDecoder(PreTrained):
    """An XLM-RoBERTa-XL encoder and an XLM-RoBERTa-XL decoder of the same shape; transformers' EncoderDecoderModel.

    Files of that class load here, and files written here load there. A folder of a plain XLM-RoBERTa-XL gives its
    weights to both parts, which are separate from then on; cross-attention is new.

    Source: transformers 5.23, models/encoder_decoder; arXiv 1907.12461 (both parts from one checkpoint).
    """

    prefix: ClassVar[str] = ""

    def __init__(self, config: XLMRobertaXLConfig) -> None:
        """Build both parts.

        Args:
            config: Of the encoder; the decoder differs by `is_decoder` and `add_cross_attention`.

        Raises:
            ConfigError: No single token begins and ends a translation, or the encoder is to be causal.
        """
        super().__init__(config)
        for key in ("bos_token_id", "eos_token_id"):
            if type(value := getattr(config, key)) is not int:
                raise ConfigError(f"{key} must be one token's number in an encoder-decoder, got {value}. XLM-R has it.")
        if config.is_decoder:
            raise ConfigError("is_decoder must be false for the encoder of an encoder-decoder, got true. Leave it out.")
        self.encoder = XLMRobertaXLModel(config, add_pooling_layer=False)
        self.decoder = XLMRobertaXLForCausalLM(replace(config, is_decoder=True, add_cross_attention=True))

    @property
    def attn_implementation(self) -> str:
        """The attention backend of both parts."""
        return self.encoder.attn_implementation

    @attn_implementation.setter
    def attn_implementation(self, name: str) -> None:
        self.encoder.attn_implementation = self.decoder.attn_implementation = name

    def tied_weights(self) -> dict[str, str]:
        """Tie the decoder's output embedding to its input's; the encoder has an embedding of its own."""
        return {f"decoder.{alias}": f"decoder.{name}" for alias, name in self.decoder.tied_weights().items()}

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        position_ids: Tensor | None = None,
        decoder_position_ids: Tensor | None = None,
        return_dict: bool = True,
        sequences: PackedSequences | None = None,
        decoder_sequences: PackedSequences | None = None,
        rows: Tensor | None = None,
        generate: bool = False,
        max_new_tokens: int | None = None,
        num_tokens: int | None = None,
        any_rank: Callable[[bool], bool] = bool,
    ) -> ModelOutput:
        """Predict a translation's tokens from those before them, or with `generate` translate.

        Arguments not named here are `XLMRobertaXLModel.forward`'s; those with `decoder_` are of the translation.

        Args:
            decoder_input_ids: <s> and the translation. Padded calls with labels may leave it out.
            labels: As decoder_input_ids, the token that follows each: the translation and </s>; -100: no target.
            decoder_sequences: Packed calls: where translations lie, in the order of `sequences`.
            rows: Packed calls: as `XLMRobertaXLForCausalLM.forward`'s.
            generate: Return generated_ids, in each step the likeliest token; one call of the model, so that what
                gathers a divided model's weights around a call sees one.
            max_new_tokens: Longest translation, </s> included; None: as many as there are positions.
            num_tokens: Rows of the vocabulary that are tokens; None: all.
            any_rank: Whether a flag is set on any of the processes that hold the model in parts; each asks it once
                per step, and all go on until every process has done, since layers are gathered by all together.

        Returns:
            Logits and loss as `XLMRobertaXLForCausalLM.forward`, or generated_ids alone.

        Raises:
            DataError: An argument is missing, or a sequence is longer than the positions.
        """
        source = pack_inputs(
            EncoderInputs(
                input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids, sequences=sequences
            ),
            self.config,
        )
        states_SD = encode(self.encoder, source, False, False).last_hidden_state
        assert states_SD is not None
        if generate:
            limit = self.config.max_position_embeddings - self.config.pad_token_id - 1
            count = limit if max_new_tokens is None else max_new_tokens
            if not 1 <= count <= limit:
                raise DataError(f"max_new_tokens must be from 1 to {limit}, the model's positions, got {count}.")
            return ModelOutput(generated_ids=self._generate(states_SD, source.sequences, count, num_tokens, any_rank))
        if decoder_input_ids is None:
            decoder_input_ids = self._shifted(labels, packed=sequences is not None)
        target = pack_inputs(
            EncoderInputs(
                input_ids=decoder_input_ids, attention_mask=decoder_attention_mask,
                position_ids=decoder_position_ids, sequences=decoder_sequences,
            ),
            self.config,
        )  # fmt: skip
        return self._predict(target, states_SD, source.sequences, target.pack(labels), rows)

    def _shifted(self, labels_BL: Tensor | None, *, packed: bool) -> Tensor:
        """Return what the decoder reads where only its targets were given: <s>, then all targets but the last."""
        if labels_BL is None or packed:
            raise DataError(
                "decoder_input_ids must be given, or labels in a padded call, or generate=True, got none of them. "
                "Pass <s> and the translation."
            )
        start_B1 = torch.full_like(labels_BL[:, :1], self.start_token_id)
        earlier_BL = torch.cat([start_B1, labels_BL[:, :-1]], 1)
        return earlier_BL.masked_fill(earlier_BL == IGNORE_INDEX, self.config.pad_token_id)

    @property
    def start_token_id(self) -> int:
        """The token that every translation begins with, <s>."""
        assert self.config.bos_token_id is not None
        return self.config.bos_token_id

    def _predict(
        self, target: PackedInputs, states_SD: Tensor, source: PackedSequences, labels_T: Tensor | None,
        rows: Tensor | None,
    ) -> ModelOutput:  # fmt: skip
        target.encoder.encoder_hidden_states, target.encoder.encoder_sequences = states_SD, source
        output = encode(self.decoder.roberta, target, False, False)
        hidden_TD, output.last_hidden_state = output.last_hidden_state, None
        assert hidden_TD is not None
        return self.decoder.read_off(output, hidden_TD, target, labels_T, rows)

    def _generate(
        self, states_SD: Tensor, source: PackedSequences, max_new_tokens: int, num_tokens: int | None,
        any_rank: Callable[[bool], bool],
    ) -> Tensor:  # fmt: skip
        """Return the likeliest next token again and again, [B, longest]."""
        pad, end, cache = self.config.pad_token_id, self.config.eos_token_id, KeyValueCache()
        step_sequences = source.first_only()  # one token each, cut as the source, so that its states fit as they lie
        token_B = torch.full((source.num_sequences,), self.start_token_id, device=states_SD.device)
        done_B = torch.zeros_like(token_B, dtype=torch.bool)
        chosen: list[Tensor] = []
        needed: int | None = None  # steps; more of them serve other processes
        for step in range(max_new_tokens):
            output: ModelOutput = self.decoder.roberta(
                input_ids=token_B, position_ids=torch.full_like(token_B, pad + 1 + step), sequences=step_sequences,
                encoder_hidden_states=states_SD, encoder_sequences=source, past_key_values=cache, use_cache=True,
            )  # fmt: skip
            logits_BV: Tensor = self.decoder.lm_head(output.last_hidden_state)
            token_B = logits_BV[:, :num_tokens].argmax(1).masked_fill(done_B, pad)
            chosen.append(token_B)
            done_B = done_B | (token_B == end)
            if needed is None and bool(done_B.all()):
                needed = step + 1
            if not any_rank(needed is None):
                break
        return torch.stack(chosen[:needed], 1)

    @classmethod
    def read_config(cls, folder: Path, **overrides: object) -> XLMRobertaXLConfig:
        """Return the shape of both parts: of a folder of this class, or of a plain XLM-RoBERTa-XL.

        Raises:
            CheckpointError: config.json cannot be read, or its parts have different shapes.
            ConfigError: A wrong override or value.
        """
        path = folder / "config.json"
        values = read_config_file(path)
        if values.get("model_type") != MODEL_TYPE:
            return XLMRobertaXLConfig.from_dict(values, **overrides)
        encoder, decoder = values.get("encoder"), values.get("decoder")
        if not isinstance(encoder, dict) or not isinstance(decoder, dict):
            raise CheckpointError(f"{path} must describe an encoder and a decoder, got {', '.join(values)[:160]}.")
        config, other = XLMRobertaXLConfig.from_dict(encoder, **overrides), XLMRobertaXLConfig.from_dict(decoder)
        if different := [key for key in _SHAPE if getattr(config, key) != getattr(other, key)]:
            raise CheckpointError(
                f"{path} must have an encoder and a decoder of the same shape, got another {', '.join(different)}. "
                "Choose a checkpoint whose parts have one."
            )
        return config

    def match(
        self, reader: CheckpointReader, *, ignore_mismatched_sizes: bool = False, misfit: str | None = None
    ) -> tuple[dict[str, str], LoadReport]:
        """Find each part's tensors: under its name in a checkpoint of this class, or in a plain one both parts'."""
        both = any(name.startswith("decoder.") for name in reader.shapes)
        stored: dict[str, str] = {}
        new, kept, unused = [], [], []
        for name, part in (("encoder", self.encoder), ("decoder", self.decoder)):
            view = PartOfCheckpoint(reader, f"{name}." if both else "")
            found, report = match_weights(
                part, view, prefix=part.prefix, head_modules=part.head_modules, tied=part.tied_weights(),
                ignore_mismatched_sizes=ignore_mismatched_sizes, misfit=misfit,
            )  # fmt: skip
            stored |= {f"{name}.{parameter}": view.prefix + tensor for parameter, tensor in found.items()}
            new += [f"{name}.{parameter}" for parameter in report.new]
            kept += [f"{name}.{module}" for module in report.kept if part is self.decoder]
            unused.append({view.prefix + tensor for tensor in report.unused})
        left = unused[0] | unused[1] if both else unused[0] & unused[1]
        return stored, LoadReport(new=tuple(new), unused=tuple(sorted(left)), kept=tuple(kept))

    def config_values(self) -> dict[str, object]:
        """Return what transformers' EncoderDecoderModel reads."""
        config = self.config
        return {
            "architectures": ["EncoderDecoderModel"],
            "model_type": MODEL_TYPE,
            "is_encoder_decoder": True,
            "encoder": self.encoder.config.to_dict(type(self.encoder).__name__),
            "decoder": self.decoder.config.to_dict(type(self.decoder).__name__),
            "decoder_start_token_id": self.start_token_id,
            "bos_token_id": config.bos_token_id,
            "eos_token_id": config.eos_token_id,
            "pad_token_id": config.pad_token_id,
            "vocab_size": config.vocab_size,
        }


class PartOfCheckpoint:
    """The tensors of a checkpoint whose names begin with `prefix`, under the rest of their names."""

    def __init__(self, reader: CheckpointReader, prefix: str) -> None:
        """Look at `reader`; an empty prefix shows all of it."""
        self.reader, self.prefix = reader, prefix
        self.shapes = {
            name.removeprefix(prefix): shape for name, shape in reader.shapes.items() if name.startswith(prefix)
        }

    def read(self, name: str) -> Tensor:
        """Return a tensor."""
        return self.reader.read(self.prefix + name)

    def read_part(self, name: str, start: int, count: int) -> Tensor:
        """Return some of its elements."""
        return self.reader.read_part(self.prefix + name, start, count)

    def file_of(self, name: str) -> Path:
        """Return the file that holds it."""
        return self.reader.file_of(self.prefix + name)
