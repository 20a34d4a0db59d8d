"""The section about the task: what it is, how well the model does it, a few prompt pairs token by token."""

from collections.abc import Mapping
from typing import Final

from optrode.reports.blocks import chip, facts, fold, heading, paragraph, table, text
from optrode.reports.section import Section
from optrode.reports.words import count, short
from optrode.trial.prompts import Pair, Task

EXAMPLES: Final = 5


def task_section(task: Task) -> Section:
    """Description, ability, examples, and what was left out."""
    words = token_words(task)
    examples = "".join(_example(ix, pair, words) for ix, pair in enumerate(task.pairs[:EXAMPLES]))
    key = (
        f'<p class="key">{chip("same")} in both prompts {chip("clean", "clean")} clean and {chip("corrupt", "corrupt")} '
        "corrupt, where they differ. A dot before a token is its leading space.</p>"
    )
    shown = heading(f"{min(EXAMPLES, len(task))} of {count(len(task), 'prompt pair')}") if task.pairs else ""
    body = paragraph(task.description, "lede") + facts(_facts(task)) + shown + key + f'<ol class="pairs">{examples}</ol>'
    return Section("task", "Task", "The task", body + _dropped(task))


def token_words(task: Task) -> Mapping[int, str]:
    """Texts of the token ids that occur in the prompts: answers often do, also where a record holds their ids only."""
    words: dict[int, str] = {}
    for pair in task.pairs:
        for ids, tokens in ((pair.clean, pair.clean_tokens), (pair.corrupt, pair.corrupt_tokens)):
            words.update(zip(ids, tokens, strict=False))
    return words


def marks_of(task: Task | None, tokens: tuple[str, ...]) -> Mapping[int, str]:
    """Names of positions, from the pair whose prompt this is, else from the first of the same length."""
    if task is None:
        return {}
    same = [pair for pair in task.pairs if pair.clean_tokens == tokens]
    alike = same or [pair for pair in task.pairs if len(pair.clean) == len(tokens)]
    return positions(alike[0]) if alike else {}


def positions(pair: Pair) -> Mapping[int, str]:
    """Position -> its names."""
    named: dict[int, str] = {}
    for name, pos in pair.marks.items():
        at = pos % len(pair.clean)
        named[at] = f"{named[at]}, {name}" if at in named else name
    return named


def _facts(task: Task) -> list[tuple[str, str, str]]:
    lengths = sorted({len(pair.clean) for pair in task.pairs})
    span = (
        "" if not lengths else f"{lengths[0]} tokens each" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]} tokens"
    )
    found = [("Prompt pairs", str(len(task)), span)]
    if task.ability:
        metric = task.metric.replace("_", " ")
        found += [
            ("Accuracy", f"{task.ability.accuracy:.0%}", "on clean prompts"),
            (f"Clean {metric}", short(task.ability.clean), "mean over prompts"),
            (f"Corrupt {metric}", short(task.ability.corrupt), "mean over prompts"),
        ]
    else:
        found.append(("Accuracy", "not measured", f"metric {task.metric.replace('_', ' ')}"))
    return [*found, ("Random seed", str(task.random_seed), "of the pairs")]


def _example(ix: int, pair: Pair, words: Mapping[int, str]) -> str:
    marks = positions(pair)
    stacks = "".join(_stack(pos, pair, marks) for pos in range(len(pair.clean)))
    right = _answers(pair.right, pair.right_tokens, words, "right")
    wrong = _answers(pair.wrong, pair.wrong_tokens, words, "wrong")
    answers = f'<p class="answers"><span>Right {right}</span>' + (f"<span>Wrong {wrong}</span></p>" if wrong else "</p>")
    return f'<li><div class="tokens">{stacks}</div>{answers}</li>'


def _stack(pos: int, pair: Pair, marks: Mapping[int, str]) -> str:
    clean, corrupt = _token(pair.clean, pair.clean_tokens, pos), _token(pair.corrupt, pair.corrupt_tokens, pos)
    mark = f'<span class="mark">{text(marks[pos])}</span>' if pos in marks else '<span class="mark"></span>'
    if pos < len(pair.corrupt) and pair.clean[pos] == pair.corrupt[pos]:
        return f'<span class="stack">{mark}{chip(clean, "", f"position {pos}")}</span>'
    both = chip(clean, "clean", f"position {pos}, clean") + chip(corrupt, "corrupt", f"position {pos}, corrupt")
    return f'<span class="stack">{mark}{both}</span>'


def _token(ids: tuple[int, ...], tokens: tuple[str, ...], pos: int) -> str:
    if pos < len(tokens):
        return tokens[pos]
    return str(ids[pos]) if pos < len(ids) else ""


def _answers(ids: tuple[int, ...], tokens: tuple[str, ...], words: Mapping[int, str], kind: str) -> str:
    """A few answers: as text where the record or its prompts give it, as ids where they do not."""
    known = {**words, **dict(zip(ids, tokens, strict=False))}
    shown = " ".join(chip(known.get(ix, f"id {ix}"), kind, f"token id {ix}") for ix in ids[:6])
    return shown + (f" and {len(ids) - 6} more" if len(ids) > 6 else "")


def _dropped(task: Task) -> str:
    if not task.dropped:
        return ""
    rows = [(text(row.reason), str(row.n)) for row in task.dropped]
    total = sum(row.n for row in task.dropped)
    inner = table(("reason", "pairs"), rows, "Generated pairs that were left out, by reason")
    return fold(f"{count(total, 'generated pair')} left out, with reasons", inner)
