"""Near words."""

from xlmrxl_train.spelling import nearest


def test_nearest() -> None:
    assert nearest("batch_size", ["train.batch_size", "train.epochs"]) == "train.batch_size"
    assert nearest("optimiser.lr", ["train.lr", "optimizer.lr"]) == "optimizer.lr"
    assert nearest("zzz", ["train.batch_size"]) is None
