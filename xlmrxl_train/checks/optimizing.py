"""What goes with an optimizer, its paces, early stopping, and compiled layers."""

from xlmrxl_train.config import Config, FSDP2Config, Zero3Config, ZeroConfig


def faults_of_optimizing(config: Config) -> list[str]:
    """Return which of the settings do not go together."""
    faults, strategy, optimizer, train = [], config.strategy, config.optimizer, config.train
    if optimizer.unfreeze_after >= train.epochs:
        faults.append(
            f"optimizer.unfreeze_after must be below train.epochs = {train.epochs}, got {optimizer.unfreeze_after}. "
            "Lower it, or train longer."
        )
    if train.patience is not None and (config.evaluate.select != "best" or config.evaluate.every == 0):
        faults.append(
            f"train.patience must go with evaluate.select=best and evaluate.every above 0, got "
            f"{config.evaluate.select} and {config.evaluate.every}. Set both, or train.patience=null."
        )
    if optimizer.name == "adamw_8bit" and isinstance(strategy, ZeroConfig):
        faults.append(
            f"optimizer.name=adamw_8bit must go with strategy=single, ddp or fsdp2, got {strategy.name}, which cuts "
            "moments anywhere. Choose strategy=fsdp2, which divides as much, or optimizer=adamw."
        )
    if optimizer.name == "adamw_8bit" and isinstance(strategy, FSDP2Config) and strategy.offload:
        faults.append(
            "optimizer.name=adamw_8bit must keep moments on the device, got strategy.offload=true. "
            "Set strategy.offload=false, or optimizer=adamw."
        )
    if train.matmul == "fp8" and train.precision != "bf16":
        faults.append(
            f"train.matmul=fp8 must go with train.precision=bf16, got {train.precision}. Set one of them otherwise."
        )
    if train.matmul == "fp8" and isinstance(strategy, ZeroConfig):
        faults.append(
            f"train.matmul=fp8 must go with strategy=single, ddp or fsdp2, got {strategy.name}, under which nobody has "
            "tried it. Choose strategy=fsdp2, or train.matmul=bf16."
        )
    if train.compile and isinstance(strategy, Zero3Config):
        faults.append(
            f"train.compile must be false with strategy={strategy.name}, got true: DeepSpeed gathers weights inside of "
            "what would be compiled. Choose strategy=fsdp2, or train.compile=false."
        )
    if train.compile and train.recompute == "selective":
        faults.append(
            "train.compile must be false with train.recompute=selective, got true: it cannot see the products in "
            "compiled code. Choose train.recompute=full, or train.compile=false."
        )
    return faults
