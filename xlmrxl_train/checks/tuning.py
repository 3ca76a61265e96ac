"""What a choice of parameters to train asks of the other settings."""

from xlmrxl_train.checks.tasks import WITHOUT_TRAINING
from xlmrxl_train.config import Config, LoraTuningConfig

TARGETS = ("query", "key", "value", "attention_output", "intermediate", "output")
NEW_MATRICES = ("translation",)  # its cross-attention begins as random numbers, and must learn whole


def faults_of_tuning(config: Config) -> list[str]:
    """Return what does not suit the choice of parameters to train."""
    tuning, kind, faults = config.tuning, config.task.kind, []
    if tuning.name != "full" and kind in (*NEW_MATRICES, *WITHOUT_TRAINING):
        why = "has matrices that begin as random numbers" if kind in NEW_MATRICES else "trains nothing"
        faults.append(f"tuning must be full where task={kind}, which {why}, got {tuning.name}. Leave tuning out.")
    if tuning.name != "full" and config.model.embeddings in ("trainable", "active"):
        faults.append(
            f"model.embeddings must be auto or frozen with tuning={tuning.name}, under which no word is trained, got "
            f"{config.model.embeddings}. Leave one of them out."
        )
    if tuning.name != "full" and config.train.matmul == "fp8":
        faults.append(f"train.matmul must be bf16 with tuning={tuning.name}, got fp8. Leave one of them out.")
    if not isinstance(tuning, LoraTuningConfig):
        return faults
    if config.model.path is None:
        faults.append(
            f"tuning={tuning.name} needs model.path, got null: adapters are for weights that were trained. "
            "Give model.path=<Hub id, folder or run folder>, or leave tuning out."
        )
    if tuning.weights is not None and config.train.precision == "fp32":
        faults.append(
            f"tuning.weights={tuning.weights} needs train.precision=bf16, got fp32: its products are in bf16. "
            "Set one of them."
        )
    return faults
