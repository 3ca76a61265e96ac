"""How each public model is used, as lines of Python for its card. A test runs every one of them."""

PIPELINE_TAGS = {
    "XLMRobertaXLModel": "feature-extraction",
    "XLMRobertaXLForMaskedLM": "fill-mask",
    "XLMRobertaXLForCausalLM": "text-generation",
    "XLMRobertaXLForSequenceClassification": "text-classification",
    "XLMRobertaXLForMultipleChoice": "multiple-choice",
    "XLMRobertaXLForTokenClassification": "token-classification",
    "XLMRobertaXLForQuestionAnswering": "question-answering",
}

_AUTO = {"XLMRobertaXLModel": "AutoModel"} | {
    name: f"AutoModelFor{name.removeprefix('XLMRobertaXLFor')}"
    for name in PIPELINE_TAGS
    if name.startswith("XLMRobertaXLFor")
}
_PAIR = '"A premise or a question.", "A hypothesis or a text."'
_TEXT = 'tokenizer("Ein Satz.", return_tensors="pt")'
_INPUTS = {
    "XLMRobertaXLForMaskedLM": 'tokenizer("Paris is the <mask> of France.", return_tensors="pt")',
    "XLMRobertaXLForMultipleChoice": (
        'tokenizer(["It rained."] * 2, ["She took an umbrella.", "She sang."], padding=True, return_tensors="pt")'
    ),
    "XLMRobertaXLForSequenceClassification": f'tokenizer({_PAIR}, return_tensors="pt")',
    "XLMRobertaXLForQuestionAnswering": f'tokenizer({_PAIR}, return_tensors="pt")',
}
_ANSWERS = {
    "XLMRobertaXLModel": "print(outputs.last_hidden_state.shape)",
    "XLMRobertaXLForMaskedLM": (
        "place = inputs.input_ids[0].tolist().index(tokenizer.mask_token_id)\n"
        "print(tokenizer.decode(outputs.logits[0, place].topk(5).indices))"
    ),
    "XLMRobertaXLForCausalLM": "print(tokenizer.decode(outputs.logits[0, -1].argmax()))",
    "XLMRobertaXLForSequenceClassification": "print(model.config.id2label[outputs.logits[0].argmax().item()])",
    "XLMRobertaXLForMultipleChoice": "print(outputs.logits[0].argmax().item())",
    "XLMRobertaXLForTokenClassification": (
        "print([model.config.id2label[index] for index in outputs.logits[0].argmax(-1).tolist()])"
    ),
    "XLMRobertaXLForQuestionAnswering": (
        "start, end = outputs.start_logits[0].argmax(), outputs.end_logits[0].argmax()\n"
        "print(tokenizer.decode(inputs.input_ids[0, start : end + 1]))"
    ),
}


def snippet(name: str, *, adapter_labels: int | None = None) -> str:
    """Return Markdown that uses a model of this class from transformers, and names the same in xlmrxl_train.

    Args:
        name: Of the class.
        adapter_labels: Of its head, where the folder has an adapter alone; None: it has all weights.
    """
    call = "model(**{key: value[None] for key, value in inputs.items()})" if "Choice" in name else "model(**inputs)"
    load = [f"model = {_AUTO[name]}.from_pretrained(folder).eval()"]
    if adapter_labels is not None:
        load = [
            "from peft import PeftConfig, PeftModel",
            "base = PeftConfig.from_pretrained(folder).base_model_name_or_path",
            f"model = {_AUTO[name]}.from_pretrained(base, num_labels={adapter_labels})",
            "model = PeftModel.from_pretrained(model, folder).eval()",
        ]
    lines = [
        "import torch",
        f"from transformers import {_AUTO[name]}, AutoTokenizer",
        "",
        'folder = "."  # this folder, or its id on the Hub',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        *load,
        f"inputs = {_INPUTS.get(name, _TEXT)}",
        "with torch.no_grad():",
        f"    outputs = {call}",
        _ANSWERS[name],
    ]
    return "\n".join(
        [
            "```python", *lines, "```", "",
            f"With xlmrxl_train, without padding: `from xlmrxl_train.model import {name}`, then "
            f"`{name}.from_pretrained(folder)`.",
        ]
    )  # fmt: skip
