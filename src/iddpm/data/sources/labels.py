"""Labels of an image folder: its class subfolders, or the rows of its labels.csv."""

import csv
from pathlib import Path

from iddpm.errors import UserError
from iddpm.params import ImagesDataset, Labels

LABELS_FILE = "labels.csv"
HEADER = ["file", "label"]
NAMES_SHOWN = 5


def read_labels(dataset: ImagesDataset, folder: Path, splits: dict[str, list[str]]) -> dict[str, int]:
    """The class of every file, {} without labels. UserError names what has no label, or a wrong number of classes.

    A class is an integer as it stands in labels.csv where all labels are integers, else the place of its name in
    the sorted list of names.
    """
    if dataset.labels is Labels.NONE:
        return {}
    files = [file for members in splits.values() for file in members]
    if dataset.labels is Labels.FOLDERS:
        names = _folder_names(folder, files, depth=0 if dataset.test_every else 1)
    else:
        names = _rows(folder / LABELS_FILE, files)
    labels, found, shown = _numbered(names, integers=dataset.labels is Labels.FILE)
    if found != dataset.classes:
        raise UserError(
            f"{folder}: has {found} classes ({shown}), but the dataset's parameter classes is {dataset.classes}"
        )
    return labels


def found_labels(folder: Path, files: list[str]) -> dict[str, int] | None:
    """The class of every file, numbered as by `read_labels`; None where the folder shows none.

    Classes are the rows of its labels.csv, else two or more subfolders that all files lie in. UserError names what
    is wrong with labels.csv.
    """
    if (folder / LABELS_FILE).exists():
        return _numbered(_rows(folder / LABELS_FILE, files), integers=True)[0]
    if all("/" in file for file in files) and len({file.split("/")[0] for file in files}) > 1:
        return _numbered(_folder_names(folder, files, depth=0), integers=False)[0]
    return None


def _numbered(names: dict[str, str], *, integers: bool) -> tuple[dict[str, int], int, str]:
    """The class of every file by the name of its class, the number of classes, and some of them for a message.

    `integers` says that names which are all integers stand for themselves.
    """
    if integers and all(name.isdecimal() for name in names.values()):
        labels = {file: int(name) for file, name in names.items()}
        return labels, max(labels.values()) + 1, f"labels up to {max(labels.values())}"
    classes = sorted(set(names.values()))
    label_of = {name: label for label, name in enumerate(classes)}
    shown = ", ".join(classes[:NAMES_SHOWN]) + (", ..." if len(classes) > NAMES_SHOWN else "")
    return {file: label_of[name] for file, name in names.items()}, len(classes), shown


def _folder_names(folder: Path, files: list[str], depth: int) -> dict[str, str]:
    """The path component at `depth`: 1 below the subfolders of splits."""
    names = {}
    for file in files:
        parts = file.split("/")
        if len(parts) < depth + 2:
            raise UserError(f"{folder / file}: lies in no class folder, which labels: folders needs")
        names[file] = parts[depth]
    return names


def _rows(path: Path, files: list[str]) -> dict[str, str]:
    """The label of each file by its row, exactly one for each."""
    names: dict[str, str] = {}
    known = set(files)
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            rows = csv.reader(stream)
            if next(rows, None) != HEADER:
                raise UserError(f"{path}: its first line must be {','.join(HEADER)}")
            for row in rows:
                line = f"{path}: line {rows.line_num}"
                if len(row) != len(HEADER) or not row[1]:
                    raise UserError(f"{line}: is not a file and its label")
                if row[0] not in known:
                    raise UserError(f"{line}: {row[0]}: there is no such image in its folder")
                if row[0] in names:
                    raise UserError(f"{line}: {row[0]}: has a label already")
                names[row[0]] = row[1]
    except FileNotFoundError:
        raise UserError(f"{path}: missing; labels: file needs it, with rows of {','.join(HEADER)}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is not a CSV file in UTF-8 ({error})") from None
    if missing := next((file for file in files if file not in names), None):
        raise UserError(f"{path}: has no row for {missing}")
    return names
