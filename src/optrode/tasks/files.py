"""A user's own pairs, from JSON lines or CSV.

Each row has `clean`, `corrupt`, `answer` and, unless the metric does without, `wrong`. Answers are texts of one token,
or several of them: a list in JSON, separated by `|` in CSV. A leading space belongs to the answer.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from optrode.errors import BadFile, BadPairs
from optrode.model.model import Model
from optrode.tasks.build import NOT_ONE_TOKEN, UNEQUAL, Draft, Plan, checked_task, pair_from_draft
from optrode.trial.prompts import Pair, Task

COLUMNS: Final = ("clean", "corrupt", "answer")
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
    candidates = [(line, _candidate(model, path, line, row)) for line, row in rows]
    bad = [(line, reason) for line, reason in candidates if isinstance(reason, str)]
    if bad and not drop_bad:
        raise _bad_pairs(model, path, dict(rows), bad)
    plan = Plan(path.stem, f"Pairs from {path.name}.", metric, len(rows), 0, require_accuracy)
    return checked_task(model, plan, [candidate for _, candidate in candidates])


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    asked = f"pairs from {path}"
    if path.suffix not in (".jsonl", ".csv"):
        raise BadFile(asked, f"files end in .jsonl or .csv, not {path.suffix!r}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        there = sorted(p.name for p in path.parent.glob("*.[jc]s*")) if path.parent.is_dir() else []
        raise BadFile(asked, "no such file", nearest=there[:3]) from None
    except UnicodeDecodeError as error:
        raise BadFile(asked, f"it is not UTF-8 text (byte {error.start})") from None
    yield from _json_rows(asked, text) if path.suffix == ".jsonl" else _csv_rows(text)


def _json_rows(asked: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadFile(asked, f"line {number} is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise BadFile(asked, f"line {number} is not an object", next_step='write {"clean": ..., "corrupt": ..., ...}')
        yield number, row


def _csv_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.DictReader(text.splitlines())
    for row in reader:
        yield reader.line_num, {key: value for key, value in row.items() if key is not None}


def _candidate(model: Model, path: Path, line: int, row: Mapping[str, Any]) -> Pair | str:
    missing = [column for column in COLUMNS if not row.get(column)]
    if missing:
        raise BadFile(
            f"pairs from {path}", f"line {line} has no {missing[0]!r}; its columns are {', '.join(row)}",
            next_step=f"give every row {', '.join(COLUMNS)} and, for gap metrics, wrong",
        )  # fmt: skip
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
