"""A name or a path becomes local files: models and tokenizers, from a folder or from the Hugging Face Hub.

The Hub's own variables hold: HF_ENDPOINT (another server), HF_HOME (where downloads are kept), HF_HUB_OFFLINE=1
(only what was downloaded before), HF_TOKEN (for gated repositories).
"""

from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from xlmrxl_train.errors import ConfigError
from xlmrxl_train.progress import progress

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.json.gz", "sentencepiece.bpe.model")

IN_RUN = ("model", "adapter")
"""Where a run folder has its model: the whole, or what was added to the weights of model.path."""
MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 4000  # of Linux's file systems; the latter leaves room for what we append
_NAME_ONE = "Name a file, or a folder or Hub id that has one"
_SMALL_FILES = ["*.json", "*.txt", *TOKENIZER_FILES[1:]]
# In order of preference; a repository with several formats is fetched in the first one only.
_WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin")


def resolve_model(path_or_id: str, revision: str | None = None, *, key: str = "model.path") -> Path:
    """Return a local folder with config.json and weights.

    Args:
        path_or_id: A folder, a run folder (its `model/` is taken, else its `adapter/`), or an id on the Hub.
        revision: Commit or tag on the Hub; null: the main branch. Not for folders.
        key: The setting that named it.

    Raises:
        ConfigError: There is no such folder or repository, it cannot be reached, or it holds no model.
    """
    if not is_local(path_or_id):
        return _download_model(path_or_id, revision, key)
    folder = _existing(path_or_id, key, "folder")
    if not folder.is_dir():
        raise ConfigError(f"{key} must be a folder, a run folder or a Hub id, got the file {folder}. Name its folder.")
    if not (folder / "config.json").is_file():
        folder = next((inner for name in IN_RUN if ((inner := folder / name) / "config.json").is_file()), folder)
    if fault := _fault_of_model(folder):
        raise ConfigError(f"{key} must be a folder with config.json and weights, got {folder}: {fault}.")
    return folder


def resolve_tokenizer(path_or_id: str, revision: str | None = None, *, key: str = "tokenizer.path") -> Path:
    """Return the local file to read a tokenizer from: tokenizer.json, tokenizer.json.gz or sentencepiece.bpe.model.

    Args:
        path_or_id: One of these files (any name), a folder or run folder with one of them, or an id on the Hub.
        revision: Commit or tag on the Hub; null: the main branch. Not for files and folders.
        key: The setting that named it.

    Raises:
        ConfigError: There is no such file, folder or repository, it cannot be reached, or it holds no tokenizer.
    """
    if is_local(path_or_id):
        path = _existing(path_or_id, key, "file or folder")
        folders = [path, *(path / name for name in IN_RUN)]
    else:
        path = _download(path_or_id, revision, key, list(TOKENIZER_FILES))
        folders = [path]
    if path.is_file():
        return path
    found = (folder / name for folder in folders for name in TOKENIZER_FILES if (folder / name).is_file())
    if (file := next(found, None)) is None:
        raise ConfigError(
            f"{key} must hold {', '.join(TOKENIZER_FILES[:-1])} or {TOKENIZER_FILES[-1]}, got {path_or_id}, which has "
            f"none of them. {'Put it there, or name a tokenizer' if key == 'model' else _NAME_ONE}."
        )
    return file


def at_hand(path_or_id: str, revision: str | None, names: tuple[str, ...]) -> Path | None:
    """Return the folder with one of these files, if it is on this machine; nothing is fetched and nobody asked."""
    from huggingface_hub import try_to_load_from_cache

    if is_local(path_or_id):
        path = Path(path_or_id).expanduser()
        folders = [path.parent if path.is_file() else path, path / "model"]
        return next((folder for folder in folders if any((folder / name).is_file() for name in names)), None)
    found = (try_to_load_from_cache(path_or_id, name, revision=revision) for name in names)
    return next((Path(file).parent for file in found if isinstance(file, str)), None)


def has_weights(folder: Path) -> bool:
    """Return whether a folder has config.json and weights."""
    return _fault_of_model(folder) is None


def is_local(path_or_id: str) -> bool:
    """Return whether a name means a place on this machine, and not a repository on the Hub."""
    if path_or_id.startswith((".", "/", "~")) or path_or_id.count("/") > 1:
        return True
    try:
        return Path(path_or_id).exists()
    except OSError:  # longer than the file system allows
        return False


def local_path(path: str, key: str) -> Path:
    """Return a path with ~ expanded.

    Raises:
        ConfigError: It names a user that this machine does not have, or is longer than file systems allow.
    """
    longest = max((len(part.encode(errors="replace")) for part in Path(path).parts), default=0)
    if longest > MAX_NAME_BYTES or len(path) > MAX_PATH_BYTES:
        raise ConfigError(f"{key} must be a path with names of at most {MAX_NAME_BYTES} bytes, got {path[:40]}... "
                          f"with one of {longest}. Shorten it.")  # fmt: skip
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{key} must be a path, got {path}, whose home folder is not known. Write it out.") from error


def why_unreachable() -> str | None:
    """Return why the Hub cannot be asked, or None where it answers, whatever it says."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return f"offline (HF_HUB_OFFLINE is set); {constants.HF_HUB_CACHE} has what was fetched before"
    try:
        with urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=3.0):
            return None
    except HTTPError:
        return None
    except (OSError, ValueError) as error:
        return f"{constants.ENDPOINT} does not answer ({str(error)[:120]})"


def hub_fault(key: str, what: str, error: Exception) -> ConfigError:
    """Say in one line why the Hub did not give something, and what to do.

    Args:
        key: The setting that named it.
        what: What was asked for: "owner/name at revision main".
        error: As `huggingface_hub` or `datasets` raised it.
    """
    from huggingface_hub import constants

    # By name: a gated repository is also a "not found" one, and `datasets` raises its own classes of these names.
    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    names = {parent.__name__ for link in chain for parent in type(link).__mro__}
    tried = f"{key}: {what} was asked for at {constants.ENDPOINT}"
    if "GatedRepoError" in names or ("DatasetNotFoundError" in names and "gated" in str(error)):
        return ConfigError(f"{tried}, which wants its terms accepted. Accept them on its page there and set HF_TOKEN.")
    if constants.HF_HUB_OFFLINE or "OfflineModeIsEnabled" in names:
        return ConfigError(
            f"{key}: {what} was looked for in {constants.HF_HUB_CACHE} (HF_HUB_OFFLINE is set) and is not there. "
            "Fetch it on a machine with a network, or name a local folder."
        )
    if "RevisionNotFoundError" in names:
        return ConfigError(f"{tried}, which has the repository but no such revision. Name a commit, tag or branch.")
    if names & {"RepositoryNotFoundError", "DatasetNotFoundError", "HFValidationError"}:
        return ConfigError(
            f"{tried}, which has no such repository or hides it. Check the name; for a private one set HF_TOKEN."
        )
    first_line = str(error).strip().partition("\n")[0]
    return ConfigError(
        f"{tried} and could not be fetched ({type(error).__name__}: {first_line}). "
        "Check the network and HF_ENDPOINT, or name a local folder."
    )


def _existing(path: str, key: str, kind: str) -> Path:
    found = local_path(path, key)
    if not found.exists():
        raise ConfigError(f"{key}: {kind} not found: {path} (looked from {Path.cwd()}). Check the path.")
    return found


def _fault_of_model(folder: Path) -> str | None:
    if not (folder / "config.json").is_file():
        beside = " beside the adapter: copy its base's there and write its labels in id2label"
        return f"it has no config.json{beside if (folder / 'adapter_config.json').is_file() else ''}"
    if not any(any(folder.glob(pattern)) for pattern in (*_WEIGHT_FILES, "*.pt")):
        return "it has no weights (*.safetensors or pytorch_model*.bin)"
    return None


def _download_model(repository: str, revision: str | None, key: str) -> Path:
    for weights in _WEIGHT_FILES:
        folder = _download(repository, revision, key, [*_SMALL_FILES, weights])
        if any(folder.glob(weights)):
            break
    if fault := _fault_of_model(folder):
        raise ConfigError(f"{key} must be a Hub id with config.json and weights, got {repository}: {fault}.")
    return folder


def _download(repository: str, revision: str | None, key: str, patterns: list[str]) -> Path:
    from huggingface_hub import snapshot_download

    try:
        with progress.trusting(f"fetching {repository}"):
            return Path(
                snapshot_download(repository, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"])
            )
    except Exception as error:  # the HTTP libraries below it, which change with its version, share no base class
        raise hub_fault(key, f"{repository} at revision {revision or 'main'}", error) from error
