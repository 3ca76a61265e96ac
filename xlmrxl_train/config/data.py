"""Where examples come from."""

from dataclasses import dataclass

from xlmrxl_train.config.keys import key


@dataclass(kw_only=True, slots=True)
class FileSet:
    """Some rows of one split: files of one format, one per language or one with a language column."""

    path: str = key("", "below data.root; {language} stands for the language's code; * for any text")
    parallel: dict[str, str] = key(
        {},
        "instead of path: column -> text file, line n of each belonging to line n of the others; with format=tsv, csv, "
        "jsonl or parquet: name -> table, whose columns are then <name>.<column>",
    )
    format: str = key(
        "auto", "tsv | csv | jsonl | parquet | conll | conllu | squad | text | bucc | udhr; auto: by suffix, also .gz"
    )
    header: bool = key(True, "whether the first row of a tsv or csv names the columns")
    column_names: list[str] = key([], "names of the columns where there is no header")
    separator: str | None = key(None, "null: tab for tsv, comma for csv")
    quoting: bool | None = key(None, "whether double quotes enclose fields; null: csv yes, tsv no")
    columns: dict[str, str] = key({}, "role -> column, where it differs from dataset.columns")
    languages: list[str] = key([], "the languages these files hold; empty: all of the data set's")
    part: list[float] = key([], "[0.0, 0.5] takes the first half of the rows; empty: all")
    translated: bool = key(False, "whether a machine translated them into the language; reports say translate-train")
    stand_in: str | None = key(None, "why this is not the official split; stamped on every report that used it")


@dataclass(kw_only=True, slots=True)
class FilesConfig:
    """Where the splits of a data set lie as files."""

    train: list[FileSet] = key([], "files of the training split")
    validation: list[FileSet] = key([], "files of the validation split")
    test: list[FileSet] = key([], "files of the test split")


@dataclass(kw_only=True, slots=True)
class HubConfig:
    """Where a data set lies on the Hub, in parquet."""

    repository: str = key("", "owner/name")
    revision: str = key("main", "commit, so that scores stay comparable")
    configuration: str = key(
        "{language}", "{language} stands for the language's code, {language_name} for its English name"
    )
    language_names: dict[str, str] = key({}, "code -> name, where the Hub's name of a language is another")
    train: str | None = key("train", "the Hub's name of the split, or a part of it: train[:99%]; null: there is none")
    validation: str | None = key("validation", "likewise")
    test: str | None = key("test", "likewise")
    missing: dict[str, list[str]] = key({}, "split -> languages that have none: {validation: [th]}")
    translated: list[str] = key([], "languages into which a machine translated the training split")
    columns: dict[str, str] = key({}, "role -> column, where it differs from dataset.columns")
    id_prefixes: dict[str, str] = key(
        {}, "language -> how the ids of its rows begin, where one configuration holds all and no column says which"
    )


@dataclass(kw_only=True, slots=True)
class DatasetConfig:
    """One data set of a known kind: where it lies, what its columns and labels mean, which languages it has."""

    name: str = key("", "as reports write it")
    kind: str = key("", "the task that reads it: sequence_classification, masked_language_modelling, ...")
    languages: list[str] = key([], "codes as the data set writes them")
    columns: dict[str, str] = key(
        {},
        "role -> column, {language} allowed; roles of a classification are text, text_pair, label; of words' labels "
        "tokens, tags; of question answering context, question, answers",
    )
    language_column: str | None = key(None, "the column with the language, where one file holds several")
    id_column: str | None = key(None, "the column with the example's id; null: its row number")
    labels: list[str] = key([], "class names in the order of their ids")
    label_values: dict[str, str] = key({}, "a label as the files write it -> class name, where they differ")
    skip_labels: list[str] = key([], "rows with these labels are left out (XNLI's '-')")
    templates: dict[str, str] = key(
        {},
        "multiple choice: text of {context} and {question}, text_pair of {choice} and maybe {question}; left out: "
        "context and question beside the choice",
    )
    metrics: list[str] = key([], "the first one selects the checkpoint; empty: the task's")
    hub: HubConfig | None = key(None, "where it lies on the Hub")
    files: FilesConfig | None = key(None, "where it lies below data.root")
    sample: FilesConfig | None = key(None, "where a stand-in lies inside the package")
    citation: str = key("", "paper and address")
    license: str = key("", "of the data")


@dataclass(kw_only=True, slots=True)
class DataConfig:
    """Where rows come from, and where what is made of them is kept."""

    source: str = key("auto", "auto | hub | files | sample; auto: files where data.root is set, else hub, else sample")
    root: str | None = key(None, "folder of the data set's files")
    limit: int | None = key(None, "examples per split and language, the first ones; null: all")
    cache: str | None = key(None, "folder of tokenised data; null: $XLMRXL_CACHE, else ~/.cache/xlmrxl_train")
