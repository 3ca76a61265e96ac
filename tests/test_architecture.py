"""Who may import whom. ruff's banned-api rule says it in the editor; this reads the imports themselves."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "xlmrxl_train"

# A folder or module of the package -> the others that it may import.
MAY_IMPORT = {
    "errors": set(),
    "launcher": {"errors"},
    "stop": {"errors"},
    "spelling": set(),
    "progress": set(),
    "hashing": {"progress"},
    "config": {"errors"},
    "hub": {"errors", "progress"},
    "model": {"errors", "hub", "inference"},  # inference: late, to spread a model over devices
    "data": {"config", "errors", "hashing", "hub", "progress"},
    "metrics": {"errors"},
    "parallel": {"config", "errors", "launcher", "progress", "spelling", "__init__"},
    "tasks": {"config", "data", "errors", "metrics", "model"},
    "plan": {"config", "data", "errors", "launcher", "model", "parallel", "spelling", "tasks"},
    "track": {"config", "errors", "progress"},
    "training": {"config", "data", "errors", "hashing", "model", "parallel", "progress", "tasks", "track", "stop"},
    "evaluation": {"config", "data", "errors", "metrics", "model", "parallel", "progress", "tasks", "track", "stop"},
    "inference": {
        "checks",
        "config",
        "data",
        "errors",
        "evaluation",
        "hub",
        "metrics",
        "model",
        "progress",
        "spelling",
        "tasks",
        "track",
        "__init__",
    },
    "checks": {"config", "errors"},
    "catalogue": {"errors", "evaluation", "metrics"},
    "search": {"catalogue", "config", "errors", "evaluation", "metrics", "track"},
    "cli": {
        "catalogue",
        "checks",
        "config",
        "deploy",
        "doctor",
        "errors",
        "evaluation",
        "forecast",
        "inference",
        "launcher",
        "plan",
        "run",
        "search",
        "spelling",
        "sync",
        "track",
        "__init__",
    },
}
COMPOSITION_ROOT = {
    "account",
    "deploy",
    "handover",
    "forecast",
    "outline",
    "doctor",
    "run",
    "session",
    "sync",
    "training_sets",
    "lineage",
    "__init__",
    "__main__",
}  # these know everybody

# A library -> the files (or folders) of the package that may import it.
KNOWN_BY = {
    "hydra": ["cli/"],
    "omegaconf": ["cli/"],
    "accelerate": ["parallel/ddp.py", "track/", "inference/loading.py"],
    "deepspeed": ["parallel/"],
    "torch.distributed": ["parallel/", "training/checkpoint.py"],
    "wandb": ["track/"],
    "transformers": [],
    "rich": ["track/", "cli/"],
    "jinja2": ["evaluation/html/"],
    "matplotlib": ["evaluation/drawing.py"],
    "plotly": [],  # its library for browsers is read as a file
    "datasets": ["data/", "metrics/modules/"],  # its Features describe an evaluate.Metric
    "evaluate": ["metrics/"],
    "sacrebleu": ["metrics/"],
    "huggingface_hub": ["hub.py", "data/"],
    "safetensors": ["model/", "parallel/", "training/"],
    "tokenizers": ["data/"],
    "optuna": ["search/"],
    "onnx": ["inference/export/"],
    "onnxruntime": ["inference/export/"],
    "onnxscript": ["inference/export/"],
    "torchao": [
        "model/quantization.py",
        "model/quantized_weights.py",
        "model/rounded_linear.py",
        "model/float8.py",
        "parallel/adamw_8bit.py",
    ],
    "peft": ["training/adapters.py"],
}
WITHOUT_TORCH = [
    "catalogue.py",
    "checks/",
    "config/",
    "errors.py",
    "launcher.py",
    "cli/",
    "progress.py",
    "spelling.py",
    "metrics/",
    "data/cache_folder.py",
    "data/languages.py",
    "doctor/finding.py",
    "doctor/quick.py",
    "evaluation/bootstrap.py",
    "evaluation/comparison/",
    "evaluation/drawing.py",
    "evaluation/html/",
    "evaluation/numbers.py",
    "evaluation/scores.py",
    "__init__.py",
    "__main__.py",
]


def imports(path: Path) -> set[str]:
    """Return the full names that a file imports; those for type checkers only are left out."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path}: import by full name"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):
                visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


FILES = sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.fixture(scope="module")
def imported() -> dict[str, set[str]]:
    """What each file of the package imports."""
    return {name(path): imports(path) for path in FILES}


def matches(module: str, library: str) -> bool:
    return module == library or module.startswith(f"{library}.")


def test_layers(imported: dict[str, set[str]]) -> None:
    """A part that is new says in MAY_IMPORT what it may import."""
    wrong = {}
    for here, modules in imported.items():
        own = here.split("/")[0].removesuffix(".py")
        ours = {module.split(".")[1] for module in modules if matches(module, "xlmrxl_train") and "." in module}
        ours = {"__init__" if module == "__version__" else module for module in ours}
        if own not in COMPOSITION_ROOT and (more := ours - {own} - MAY_IMPORT.get(own, set())):
            wrong[here] = more
    assert not wrong
    assert {here.split("/")[0].removesuffix(".py") for here in imported} == {*MAY_IMPORT, *COMPOSITION_ROOT}


def test_libraries(imported: dict[str, set[str]]) -> None:
    """See KNOWN_BY."""
    wrong = {
        (here, module)
        for here, modules in imported.items()
        for module in modules
        for library, places in KNOWN_BY.items()
        if matches(module, library) and not any(here == place or here.startswith(place) for place in places)
    }
    assert not wrong


def test_no_torch_where_it_would_make_help_slow(imported: dict[str, set[str]]) -> None:
    """See WITHOUT_TORCH."""
    wrong = {
        here
        for here, modules in imported.items()
        if any(here == place or (place.endswith("/") and here.startswith(place)) for place in WITHOUT_TORCH)
        and any(matches(module, "torch") for module in modules)
    }
    assert not wrong


def test_no_file_is_a_drawer() -> None:
    """No utils.py, no common.py, no file over 400 lines."""
    lines = {name(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert not [path for path in lines if Path(path).stem in ("utils", "common", "helpers", "misc")]
    assert not {path: count for path, count in lines.items() if count > 400}
