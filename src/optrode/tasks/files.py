"""A user's own pairs, from JSON lines or CSV.

Each row has `clean`, `corrupt`, `answer` and, unless the metric does without, `wrong`. Answers are texts of one token,
or several of them: a list in JSON, separated by `|` in CSV. A leading space belongs to the answer.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from optrode.errors import BadFile, BadPairs, nearest
from optrode.model.model import Model
from optrode.tasks.build import NOT_ONE_TOKEN, UNEQUAL, Draft, Plan, checked_task, pair_from_draft
from optrode.trial.prompts import Pair, Task

COLUMNS: Final = ("clean", "corrupt", "answer")
GAPS: Final = ("logit_gap", "prob_gap")
"""Metrics that need wrong answers."""
_SHOWN: Final = 5


def read_pairs(
    model: Model, path: str | Path, *, metric: str = "logit_gap", require_accuracy: float = 0.7, drop_bad: bool = False
) -> Task:
    """The task of a file of prompt pairs (.jsonl or .csv).

    Args:
        metric: how to judge; "logit_gap" and "prob_gap" need wrong answers.
        drop_bad: leave out pairs that cannot be used, and count them, instead of raising.

    Raises:
        BadFile: the file is missing, empty or malformed; the message names the line.
        BadPairs: pairs of unequal token length, or answers that are not one token; the message names the lines.
        NoPairs, TaskTooHard: from the check of the task.
    """
    path = Path(path)
    rows = list(_rows(path))
    if not rows:
        raise BadFile(f"pairs from {path}", "the file holds no pair", next_step=f"write rows with {', '.join(COLUMNS)}")
    columns = (*COLUMNS, "wrong") if metric in GAPS else COLUMNS
    for line, row in rows:
        _check_columns(path, line, row, columns)
    candidates = [(line, _candidate(model, row)) for line, row in rows]
    bad = [(line, reason) for line, reason in candidates if isinstance(reason, str)]
    if bad and not drop_bad:
        raise _bad_pairs(model, path, dict(rows), bad)
    plan = Plan(path.stem, f"Pairs from {path.name}.", metric, len(rows), 0, require_accuracy)
    return checked_task(model, plan, [candidate for _, candidate in candidates])


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    asked = f"pairs from {path}"
    if path.suffix not in (".jsonl", ".csv"):
        step = "save it as JSON lines or CSV, under that suffix"
        raise BadFile(asked, f"files end in .jsonl or .csv, not {path.suffix!r}", next_step=step)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.glob("*.[jc]s*")) if path.parent.is_dir() else []
        near = nearest(path.name, there) or there[:3]
        raise BadFile(asked, "no such file", nearest=near, next_step="check the path") from None
    except UnicodeDecodeError as error:
        raise BadFile(asked, f"it is not UTF-8 text (byte {error.start})", next_step="save it as UTF-8") from None
    except OSError as error:
        raise BadFile(asked, f"it cannot be read ({error.strerror})", next_step="give a file that can") from None
    yield from _json_rows(asked, text) if path.suffix == ".jsonl" else _csv_rows(asked, text)


def _json_rows(asked: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            step = "write one JSON object per line"
            raise BadFile(asked, f"line {number} is not JSON ({error})", next_step=step) from None
        if not isinstance(row, dict):
            raise BadFile(asked, f"line {number} is not an object", next_step='write {"clean": ..., "corrupt": ..., ...}')
        yield number, row


def _csv_rows(asked: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            if None in row:  # a comma within a text would shift every later column
                raise BadFile(
                    asked, f"line {reader.line_num} has more columns than the header",
                    next_step="put texts that hold a comma in double quotes",
                )  # fmt: skip
            yield reader.line_num, row
    except csv.Error as error:
        found = f"line {reader.line_num} is not CSV ({error})"
        raise BadFile(asked, found, next_step="save it as CSV again") from None


def _check_columns(path: Path, line: int, row: Mapping[str, Any], columns: tuple[str, ...]) -> None:
    missing = [column for column in columns if not row.get(column)]
    if missing:
        raise BadFile(
            f"pairs from {path}", f"line {line} has no {missing[0]!r}; its columns are {', '.join(row)}",
            next_step=f"give every row {', '.join(COLUMNS)} and, for gap metrics, wrong",
        )  # fmt: skip


def _candidate(model: Model, row: Mapping[str, Any]) -> Pair | str:
    texts = {"clean": str(row["clean"]), "corrupt": str(row["corrupt"])}
    right, wrong = _answers(row["answer"]), _answers(row.get("wrong"))
    draft = Draft("{text}", {"text": texts["clean"]}, {"text": texts["corrupt"]}, right, wrong)
    return pair_from_draft(model, draft)


def _answers(value: Any) -> tuple[str, ...]:
    if not value:
        return ()
    return tuple(str(v) for v in value) if isinstance(value, list) else tuple(str(value).split("|"))


def _bad_pairs(model: Model, path: Path, rows: dict[int, Mapping[str, Any]], bad: list[tuple[int, str]]) -> BadPairs:
    line, reason = bad[0]
    row = rows[line]
    details = reason
    if reason == UNEQUAL:
        counts = [len(model.to_str_tokens(str(row[world]))) for world in ("clean", "corrupt")]
        details = f"clean has {counts[0]} tokens, corrupt {counts[1]}"
    if reason == NOT_ONE_TOKEN:
        answers = _answers(row["answer"]) + _answers(row.get("wrong"))
        several = next(a for a in answers if model.to_single_token(a) is None)
        details = f"the answer {several!r} is the tokens {list(model.to_str_tokens(several))}"
    lines = ", ".join(str(number) for number, _ in bad[:_SHOWN]) + (", ..." if len(bad) > _SHOWN else "")
    return BadPairs(
        f"pairs from {path}", f"{len(bad)} of {len(rows)} cannot be used (lines {lines}); line {line}: {details}",
        next_step="mend these lines (answers usually begin with a space), or leave them out with drop_bad / --drop-bad",
    )  # fmt: skip
