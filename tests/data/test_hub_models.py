"""Models and tokenizers from a small local server that speaks the Hub's protocol."""

import json
from collections.abc import Callable
from pathlib import Path

from hub_server import HubServer

ASK = """
import json, os, sys
from xlmrxl_train import hub
from xlmrxl_train.errors import ConfigError
answers = []
for function, arguments in json.loads(sys.argv[1] if len(sys.argv) > 1 else os.environ["ASKED"]):
    try:
        found = getattr(hub, function)(*arguments)
        files = sorted(file.name for file in found.iterdir()) if found.is_dir() else [found.name]
        answers.append(files)
    except ConfigError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def ask(
    run_python: Callable[..., str], url: str, *questions: tuple[str, list[str]], **environment: str
) -> list[object]:
    printed = run_python(ASK, HF_ENDPOINT=url, ASKED=json.dumps(questions), **environment)
    answers: list[object] = json.loads(printed.splitlines()[-1])
    return answers


def test_the_hub_gives_models_once_and_in_one_format(
    hub_server: HubServer, run_python: Callable[..., str], tmp_path: Path
) -> None:
    questions = [
        ("resolve_model", ["team/both"]),
        ("resolve_model", ["team/bin"]),
        ("resolve_tokenizer", ["team/both"]),
        ("resolve_model", ["team/empty"]),
        ("resolve_tokenizer", ["team/empty"]),
        ("resolve_model", ["team/gated"]),
        ("resolve_model", ["team/none"]),
        ("resolve_model", ["team/both", "v9"]),
        ("resolve_model", ["not a name"]),
    ]
    url = hub_server.url
    asked = "was asked for at"
    hidden = "which has no such repository or hides it. Check the name; for a private one set HF_TOKEN."
    assert ask(run_python, url, *questions) == [
        ["config.json", "model.safetensors", "tokenizer.json"],
        ["config.json", "pytorch_model.bin", "tokenizer.json"],
        ["tokenizer.json"],
        "model.path must be a Hub id with config.json and weights, got team/empty: it has no config.json.",
        "tokenizer.path must hold tokenizer.json, tokenizer.json.gz or sentencepiece.bpe.model, got team/empty, "
        "which has none of them. Name a file, or a folder or Hub id that has one.",
        f"model.path: team/gated at revision main {asked} {url}, which wants its terms accepted. "
        "Accept them on its page there and set HF_TOKEN.",
        f"model.path: team/none at revision main {asked} {url}, {hidden}",
        f"model.path: team/both at revision v9 {asked} {url}, which has the repository but no such revision. "
        "Name a commit, tag or branch.",
        f"model.path: not a name at revision main {asked} {url}, {hidden}",
    ]
    offline = ask(run_python, url, questions[0], questions[6], HF_HUB_OFFLINE="1")
    assert offline == [
        ["config.json", "model.safetensors", "tokenizer.json"],
        f"model.path: team/none at revision main was looked for in {tmp_path / 'hf' / 'hub'} (HF_HUB_OFFLINE is set) "
        "and is not there. Fetch it on a machine with a network, or name a local folder.",
    ]
    nobody = "http://127.0.0.1:9"
    unplugged = ask(run_python, nobody, questions[0], questions[6])
    assert unplugged[0] == offline[0]
    fault = str(unplugged[1])
    assert fault.startswith(f"model.path: team/none at revision main {asked} {nobody} and could not be fetched (")
    assert fault.endswith("Check the network and HF_ENDPOINT, or name a local folder.") and "\n" not in fault
