"""Which trials a study has, who works at them, and what came of them: kept by Optuna, shared by all its workers.

<study>/study.json      what is searched, and for which run
<study>/study.db        Optuna's own, or study.journal
<study>/study.lock      held for the moment in which a trial is begun or ended
<study>/claims/<n>      locked by the worker that works at trial n; the system unlocks it when that worker is gone
<study>/logs/, trial-<n>/
"""

import fcntl
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from xlmrxl_train.config import FREE, Config, leaves
from xlmrxl_train.errors import ConfigError, RunError
from xlmrxl_train.search.results import Row, sign_of
from xlmrxl_train.search.space import Choices, Range, Search
from xlmrxl_train.track.secrets import redact

MAX_TRIES = 3  # of a trial whose worker was killed: perhaps it is the trial that kills workers
KILLED = "its worker was killed"
_SEEDS_APART = 1_000_003  # the seeds of a study's trials are none of those of a study with the next seed


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of a trial."""

    state: str  # finished | pruned | failed | stopped, which is tried again
    why: str = ""
    score: float | None = None  # of a finished one, higher is better


@dataclass(kw_only=True, slots=True)
class Claim:
    """A trial that this worker works at, and nobody else."""

    trial: Trial
    number: int
    name: str  # of its folder: that of the trial that it tries again, else its own
    parameters: dict[str, str]  # key -> value, as a command line has it
    lock: IO[str]


class Study:
    """A search that workers on one or several machines share through a folder and Optuna's storage."""

    def __init__(self, folder: Path, storage: str, search: Search, config: Config) -> None:
        """Begin the study in a folder, or join it.

        Args:
            folder: Of the study, on a file system that all its workers share.
            storage: sqlite, journal, or the address of a database.
            search: What may be drawn.
            config: What all trials have in common.

        Raises:
            ConfigError: `storage` is none.
            RunError: The folder holds another search, or it or the storage cannot be used.
        """
        self.folder, self.search, self.seed = folder, search, config.seed
        self.noted: str | None = None  # the metric, once this worker knows it
        if (folder / "config.yaml").exists():
            raise RunError(f"--name must be that of a study or a new one, but {folder} holds a run. Choose another.")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            (folder / "claims").mkdir(parents=True, exist_ok=True)
            with self._alone():
                begun = (folder / "study.json").exists()
                name = self._begin_or_join(config, storage) if begun else ""
                opened = _storage(storage, folder)  # one that cannot be used leaves no study behind
                self.study = optuna.create_study(
                    study_name=name or self._begin_or_join(config, storage),
                    storage=opened,
                    direction="maximize",
                    load_if_exists=True,
                    pruner=_pruner(search),
                )
        except OSError as error:
            raise RunError(
                f"{folder} must be a folder that can be written, with file locks: {error.strerror or error}. "
                "Choose another run.dir, on a file system that has them."
            ) from None

    @property
    def metric(self) -> str:
        """Return the metric that scores trials; the first look at the validation split tells it."""
        return self.noted or str(self.study.user_attrs.get("metric", "loss"))

    def note_metric(self, name: str) -> None:
        """Take note of the metric that scores trials."""
        if self.noted is None:
            self.noted = name
            self.study.set_user_attr("metric", name)

    def ask(self, trials: int) -> Claim | None:
        """Return the next trial to work at: one whose worker was lost, else a new one; None where there is none.

        Args:
            trials: How many the study is to have; one that is tried again counts once.
        """
        with self._alone():
            self._bury()
            known = self.study.get_trials(deepcopy=False)
            begun = sum("retry_of" not in trial.user_attrs for trial in known)
            if begun >= trials and not any(trial.state == TrialState.WAITING for trial in known):
                return None
            self.study.sampler = _sampler(self.search, (_SEEDS_APART * self.seed + len(known)) % (1 << 32))
            trial = self.study.ask({key: _distribution(drawn) for key, drawn in self.search.space.items()})
            lock = self._lock(trial.number)
            assert lock is not None, f"trial {trial.number} is new, and somebody works at it"
            name = str(trial.user_attrs.get("folder", f"trial-{trial.number}"))
            trial.set_user_attr("folder", name)
        parameters = {key: self.search.space[key].text(trial.params[key]) for key in self.search.space}
        return Claim(trial=trial, number=trial.number, name=name, parameters=parameters, lock=lock)

    def tell(self, claim: Claim, outcome: Outcome) -> None:
        """Record what came of a trial and let go of it."""
        with self._alone():
            claim.trial.set_user_attr("why", outcome.why)
            if outcome.state == "stopped":
                claim.trial.set_user_attr("again", True)
            states = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}
            self.study.tell(claim.trial, outcome.score, states.get(outcome.state, TrialState.FAIL))
            self._unlock(claim.number, claim.lock)

    def rows(self) -> list[Row]:
        """Return the trials of all workers, by number."""
        sign = sign_of(self.metric)
        trials = self.study.get_trials(deepcopy=False)
        successors = {trial.user_attrs["retry_of"]: trial.number for trial in trials if "retry_of" in trial.user_attrs}
        return [self._row(trial, sign, successors) for trial in trials]

    def _row(self, trial: FrozenTrial, sign: int, successors: dict[int, int]) -> Row:
        attributes, state = trial.user_attrs, trial.state.name.lower()
        why = str(attributes.get("why", ""))
        if trial.number in successors:
            why += f"; tried again as trial {successors[trial.number]}"
        looks = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)]
        score = trial.value if trial.state == TrialState.COMPLETE else max(looks, default=None)
        return Row(
            number=trial.number,
            state={"complete": "finished", "fail": "stopped" if attributes.get("again") else "failed"}.get(
                state, state
            ),
            why=why,
            metric=None if score is None else sign * score,
            looks=[sign * look for look in looks],
            parameters={key: self.search.space[key].text(value) for key, value in trial.params.items()},
            folder=str(self.folder / str(attributes.get("folder", ""))),
            began=trial.datetime_start.isoformat(timespec="seconds") if trial.datetime_start else None,
            ended=trial.datetime_complete.isoformat(timespec="seconds") if trial.datetime_complete else None,
        )

    def _bury(self) -> None:
        """Record trials whose worker is gone as failed, and put what is to be tried again into the queue."""
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            lock = self._lock(trial.number)
            if lock is None:  # somebody works at it
                continue
            buried = Trial(self.study, trial._trial_id)
            buried.set_user_attr("why", KILLED)
            buried.set_user_attr("again", True)
            self.study.tell(trial.number, state=TrialState.FAIL)
            self._unlock(trial.number, lock)
        trials = self.study.get_trials(deepcopy=False)
        tried_again = {trial.user_attrs.get("retry_of") for trial in trials}
        for trial in trials:
            tries = int(trial.user_attrs.get("tries", 1))
            if trial.user_attrs.get("again") and trial.number not in tried_again and tries < MAX_TRIES:
                attributes = {"retry_of": trial.number, "tries": tries + 1}
                if "folder" in trial.user_attrs:  # the run there goes on from its last checkpoint
                    attributes["folder"] = trial.user_attrs["folder"]
                self.study.enqueue_trial(trial.params, user_attrs=attributes)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other workers from beginning or ending a trial meanwhile."""
        with (self.folder / "study.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            except optuna.exceptions.StorageInternalError as error:
                reason = redact(str(error.__cause__ or error).split("\n")[0][:200]).rstrip(".")
                raise RunError(
                    f"the storage of {self.folder} failed: {reason}. Mend it, then start the same command again."
                ) from None

    def _lock(self, number: int) -> IO[str] | None:
        """Claim a trial; None where a worker that lives has it."""
        file = (self.folder / "claims" / str(number)).open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def _unlock(self, number: int, lock: IO[str]) -> None:
        with suppress(FileNotFoundError):
            (self.folder / "claims" / str(number)).unlink()
        lock.close()

    def _begin_or_join(self, config: Config, storage: str) -> str:
        """Write what is searched for which run, or compare it with what the study was begun with; return its name."""
        space = {key: asdict(drawn) for key, drawn in self.search.space.items()}
        settings = {key: value for key, value in leaves(config) if not key.startswith(FREE)}
        settings["--storage"] = storage
        now = _plain({"name": str(self.folder), "space": space, "settings": settings})
        path = self.folder / "study.json"
        try:
            then: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            name, parts = str(then["name"]), [(then[part], now[part]) for part in ("space", "settings")]
        except FileNotFoundError:
            temporary = path.with_suffix(".partial")
            temporary.write_text(json.dumps(now, indent=1) + "\n", encoding="utf-8")
            temporary.replace(path)
            return str(now["name"])
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path} cannot be read ({error}). Restore it, or begin another study with --name."
            ) from None
        different = [
            f"  {key}: {before.get(key, 'absent')} there, {after.get(key, 'absent')} now"
            for before, after in parts
            for key in sorted({*before, *after})
            if before.get(key) != after.get(key)
        ]
        if different:
            raise RunError(
                f"{self.folder} holds another study:\n"
                + "\n".join(different)
                + "\nGo on with the same words, or begin another study with --name."
            )
        return name


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(redact(values), default=asdict))
    return plain


def _storage(word: str, folder: Path) -> BaseStorage:
    if word == "journal":
        return JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    if word != "sqlite" and "://" not in word:
        raise ConfigError(
            f"--storage must be sqlite | journal | an address such as postgresql://host/name, got {word}. "
            "sqlite and journal lie in the study's folder."
        )
    try:
        if word != "sqlite":
            return RDBStorage(word)
        return RDBStorage(f"sqlite:///{folder / 'study.db'}", engine_kwargs={"connect_args": {"timeout": 60}})
    except Exception as error:  # of the database's driver, whichever it is
        reason = redact(str(error).split("\n")[0][:200]).rstrip(".")
        raise RunError(
            f"--storage={redact(word)} cannot be used: {reason}. Mend the address or the database."
        ) from None


def _sampler(search: Search, seed: int) -> optuna.samplers.BaseSampler:
    """Return what draws one trial; a seed for each, so that no two workers draw the same."""
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=search.startup)


def _pruner(search: Search) -> optuna.pruners.BasePruner:
    if search.pruner == "none":
        return optuna.pruners.NopPruner()
    return optuna.pruners.MedianPruner(n_startup_trials=search.startup, n_warmup_steps=search.grace)


def _distribution(drawn: Range | Choices) -> BaseDistribution:
    if isinstance(drawn, Choices):
        return CategoricalDistribution(drawn.examples)
    if drawn.whole:
        return IntDistribution(int(drawn.low), int(drawn.high), log=drawn.log, step=int(drawn.step or 1))
    return FloatDistribution(drawn.low, drawn.high, log=drawn.log, step=drawn.step)
