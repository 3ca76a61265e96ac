"""What DeepSpeed lacks, or cannot do here, is said in one line before anything is loaded."""

import resource
import sys

import pytest

from xlmrxl_train.config import Zero3Config, Zero3NvmeConfig
from xlmrxl_train.errors import ConfigError
from xlmrxl_train.parallel import World, operations, swap_folder
from xlmrxl_train.parallel.operations import compile_operation, refuse_left_over
from xlmrxl_train.parallel.swap_folder import SwapFolder, check_lockable
from xlmrxl_train.parallel.zero_needs import check_zero_plus_plus, import_deepspeed, require_aio


def test_a_missing_package(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    with pytest.raises(
        ConfigError, match=r"^strategy=zero\* needs the package deepspeed, .* pip install deepspeed, or "
    ):
        import_deepspeed(World())


def test_zero_plus_plus_is_refused_where_it_cannot_be() -> None:
    config = Zero3Config(hierarchical_size=3, quantized_weights=True, quantized_gradients=True)
    with pytest.raises(ConfigError) as caught:
        check_zero_plus_plus(World(size=4), config)
    assert caught.value.faults == (
        "strategy.hierarchical_size must divide the number of ranks, 4, got 3. Use the number of GPUs of a machine.",
        "strategy.quantized_weights must be false on cpu, got true: DeepSpeed quantizes in CUDA alone. "
        "Leave it out, or use GPUs.",
        "strategy.quantized_gradients must be false on cpu, got true: DeepSpeed quantizes in CUDA alone. "
        "Leave it out, or use GPUs.",
    )
    check_zero_plus_plus(World(size=4), Zero3Config(hierarchical_size=2))


def test_an_operation_that_cannot_be_built(monkeypatch) -> None:
    from deepspeed.ops.op_builder import AsyncIOBuilder

    monkeypatch.setattr(AsyncIOBuilder, "is_compatible", lambda self, verbose: False)
    with pytest.raises(
        ConfigError,
        match=r"^strategy=zero3_nvme needs .* async_io, .* Install libaio-dev and g\+\+, or use \S+offload",
    ):
        require_aio(World())


def test_what_a_compiler_says_is_said_in_one_line(tmp_path, monkeypatch, caplog) -> None:
    from deepspeed.ops.op_builder.cpu.builder import CPUOpBuilder

    source = tmp_path / "broken.cpp"
    source.write_text("#error a header is missing\n")

    class Broken(CPUOpBuilder):
        NAME = "broken"

        def absolute_name(self) -> str:
            return "broken"

        def sources(self) -> list[str]:
            return [str(source)]

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")  # ninja is found beside Python
    with pytest.raises(ConfigError) as caught:
        compile_operation(Broken("broken"), also="other", instead="or use another")
    said = str(caught.value)
    assert said.startswith("DeepSpeed's operation broken could not be compiled: ") and "\n" not in said
    assert said.endswith("error: #error a header is missing. Mend that, or use another.")
    assert not list((tmp_path / "cache").rglob("lock"))
    [before] = caplog.messages
    assert before == "compiling DeepSpeed's operation broken, once on this machine; that may take minutes"


def test_a_lock_of_a_compilation_that_was_killed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(operations, "SECOND_LOOK", 0.01)
    lock = tmp_path / "lock"
    refuse_left_over(lock, "async_io")
    with lock.open("w"):
        refuse_left_over(lock, "async_io")  # as torch does while it compiles
    with pytest.raises(ConfigError) as caught:
        refuse_left_over(lock, "async_io")
    assert str(caught.value) == (
        f"{lock} must be held by a process that compiles async_io, but none on this machine has it open: one was "
        "killed, and DeepSpeed would wait for it without end. Remove that file."
    )


def test_a_swap_folder_is_one_runs_alone_and_empty_afterwards(tmp_path) -> None:
    config = Zero3NvmeConfig(nvme_path=str(tmp_path / "disk"))
    first = SwapFolder.take(config, World(), 1000)
    with pytest.raises(ConfigError) as caught:
        SwapFolder.take(config, World(), 1000)
    assert str(caught.value) == (
        f"strategy.nvme_path must be for one run alone, but another process uses {tmp_path / 'disk'} as rank 0. "
        "Give each run a folder of its own."
    )
    SwapFolder.take(config, World(rank=1, size=2), 1000).remove()
    first.files.mkdir(parents=True)
    (first.files / "0.swp").write_text("weights")
    first.remove()
    assert not first.files.exists()
    SwapFolder.take(config, World(), 1000).remove()


def test_a_swap_folder_that_cannot_be_used(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        SwapFolder.take(Zero3NvmeConfig(nvme_path=str(tmp_path / "file" / "disk")), World(), 1000)
    assert str(caught.value) == (
        f"strategy.nvme_path must be a folder that takes direct writes (O_DIRECT), got {tmp_path}/file/disk "
        "(Not a directory). Choose a folder on a local disk that can be written."
    )
    needed = r"must have room for weights, gradients and moments, 16,000,000\.0 GB of the ranks of this machine"
    with pytest.raises(
        ConfigError, match=rf"^strategy.nvme_path {needed}, {tmp_path} has \S+ GB\. Choose another disk"
    ):
        SwapFolder.take(Zero3NvmeConfig(nvme_path=str(tmp_path)), World(), 10**15)


def test_memory_that_may_not_be_locked(monkeypatch) -> None:
    monkeypatch.setattr(swap_folder, "lockable", lambda: 8_000_000)
    check_lockable(sub_group_mb=2, elements=10**9)
    check_lockable(sub_group_mb=1000, elements=500_000)
    with pytest.raises(ConfigError) as caught:
        check_lockable(sub_group_mb=1000, elements=10**9)
    assert str(caught.value) == (
        "strategy=zero3_nvme locks 4.0 GB of memory in each process, this one may lock 8.0 MB. "
        "Raise that (ulimit -l), or lower strategy.sub_group_mb."
    )


def test_the_limit_is_read() -> None:
    assert swap_folder.lockable() in (None, resource.getrlimit(resource.RLIMIT_MEMLOCK)[0])
