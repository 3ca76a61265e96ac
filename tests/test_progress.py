"""Where a process says that it is."""

import re
import threading

from xlmrxl_train.progress import Progress


def test_what_is_done_is_named_from_the_outside_in() -> None:
    progress = Progress()
    assert progress.describe().startswith("between two parts of its work, for 0.0 s; no collective yet")
    with progress.doing("step 7"), progress.doing("optimizer"):
        assert progress.describe().startswith("step 7, optimizer, for 0.0 s; ")
    assert progress.moves == 4


def test_a_collective_is_entered_and_left() -> None:
    progress = Progress()
    with progress.collective("sum"):
        assert re.search(r"collective 1 \(sum\) entered 0\.\d s ago, not left$", progress.describe())
    assert re.search(r"collective 1 \(sum\) entered 0\.\d s ago, left 0\.\d s ago$", progress.describe())


def test_other_threads_move_but_are_nowhere() -> None:
    progress = Progress()

    def write() -> None:
        with progress.doing("writing"), progress.collective("sum"):
            seen.append(progress.describe())

    seen: list[str] = []
    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert "writing" not in seen[0] and seen[0].endswith("no collective yet")
    assert progress.moves == 4
