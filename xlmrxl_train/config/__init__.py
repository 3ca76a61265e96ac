"""Every setting of a run: its name, type, default, unit and rule.

YAML files under `conf/` and `recipes/` are differences from these defaults. A key's help text stands in its
metadata, so that `--help` and the documentation cannot drift from the code. Nothing here imports torch or Hydra. What a
value must be, alone and beside others, stands in `checks/`.
"""

from xlmrxl_train.config.data import DataConfig, DatasetConfig, FilesConfig, FileSet, HubConfig
from xlmrxl_train.config.keys import key
from xlmrxl_train.config.model import ModelConfig, TokenizerConfig
from xlmrxl_train.config.strategies import (
    DDPConfig,
    FSDP2Config,
    SingleConfig,
    StrategyConfig,
    Zero1Config,
    Zero2Config,
    Zero3Config,
    Zero3NvmeConfig,
    Zero3OffloadConfig,
    ZeroConfig,
)
from xlmrxl_train.config.surroundings import EvaluateConfig, PlanConfig, RunConfig, TrackerConfig
from xlmrxl_train.config.tasks import (
    CausalLanguageModellingConfig,
    LanguageModellingConfig,
    MaskedLanguageModellingConfig,
    MultipleChoiceConfig,
    QuestionAnsweringConfig,
    RetrievalConfig,
    SequenceClassificationConfig,
    TaskConfig,
    TokenClassificationConfig,
    TranslationConfig,
    lengths_of,
)
from xlmrxl_train.config.training import GuardConfig, OptimizerConfig, ScheduleConfig, TrainConfig
from xlmrxl_train.config.tuning import (
    BiasTuningConfig,
    DoraTuningConfig,
    HeadTuningConfig,
    LastLayersTuningConfig,
    LoraTuningConfig,
    RsloraTuningConfig,
    TuningConfig,
)
from xlmrxl_train.config.whole import FREE, VARIANTS, Config, from_dict, leaves, to_dict

__all__ = [
    "FREE",
    "VARIANTS",
    "BiasTuningConfig",
    "CausalLanguageModellingConfig",
    "Config",
    "DDPConfig",
    "DataConfig",
    "DatasetConfig",
    "DoraTuningConfig",
    "EvaluateConfig",
    "FSDP2Config",
    "FileSet",
    "FilesConfig",
    "GuardConfig",
    "HeadTuningConfig",
    "HubConfig",
    "LanguageModellingConfig",
    "LastLayersTuningConfig",
    "LoraTuningConfig",
    "MaskedLanguageModellingConfig",
    "ModelConfig",
    "MultipleChoiceConfig",
    "OptimizerConfig",
    "PlanConfig",
    "QuestionAnsweringConfig",
    "RetrievalConfig",
    "RsloraTuningConfig",
    "RunConfig",
    "ScheduleConfig",
    "SequenceClassificationConfig",
    "SingleConfig",
    "StrategyConfig",
    "TaskConfig",
    "TokenClassificationConfig",
    "TokenizerConfig",
    "TrackerConfig",
    "TrainConfig",
    "TranslationConfig",
    "TuningConfig",
    "Zero1Config",
    "Zero2Config",
    "Zero3Config",
    "Zero3NvmeConfig",
    "Zero3OffloadConfig",
    "ZeroConfig",
    "from_dict",
    "key",
    "leaves",
    "lengths_of",
    "to_dict",
]
