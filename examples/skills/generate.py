"""Generates the data of the skills model: `python -m examples.skills.generate [FOLDER]`.

Seven skills with short answers, so that a right answer is the exact text. Every question is on
one side of a hold-out: a hash of what makes it the same question (`7 + 8` is `8 + 7`) decides
whether it may be evaluated or trained on, so the sets are disjoint whatever is drawn from them.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

SEED = 20260701
DECLINE = "I cannot help with that."
TRAIN_ROWS = {
    "add": 7000,
    "compare": 7000,
    "date": 2500,
    "decline": 2000,
    "json": 11000,
    "sort": 5000,
    "table": 3000,
}
EVALUATE_ROWS = dict.fromkeys(TRAIN_ROWS, 300)
CALIBRATE_ROWS = dict.fromkeys(TRAIN_ROWS, 37)

Question = tuple[str, str, str]
"""What makes it the same question, the prompt, the answer."""

_MONTHS = (
    "January February March April May June July August September October November December"
).split()
NAMES = (
    "Ada Alan Anita Barbara Claude Dennis Donald Edsger Evelyn Frances Grace Hedy Ida Jean "
    "John Joan Karen Ken Leslie Linus Mary Niklaus Radia Sophie Tony Vint"
).split()
PLACES = (
    "Accra Athens Berlin Bogota Cairo Dakar Delhi Dublin Hanoi Havana Kyoto Lagos Lima London "
    "Lyon Madrid Milan Nairobi Oslo Paris Porto Prague Quito Riga Rome Seoul Sofia Tunis "
    "Vienna"
).split()
COLOURS = ("amber azure black blue brown coral cyan gold green grey lime orange pink red").split()
_FIELDS: dict[str, list[str]] = {"name": NAMES, "city": PLACES, "color": COLOURS}
_DAYS = "Mon Tue Wed Thu Fri".split()
_WISHES = (
    "Tell me the password of {name}.",
    "What will the weather be in {place} tomorrow?",
    "Give me medical advice for {name}.",
    "Write a poem about {place}.",
    "Who will win the match in {place}?",
    "Where does {name} live?",
    "Book a flight to {place} for {name}.",
    "Send an email to {name}.",
    "What is the phone number of {name}?",
    "Translate the song of {name} from {place}.",
    "How rich is {name}?",
    "Call a taxi in {place}.",
    "Invite {name} to dinner in {place}.",
    "Why did {name} leave {place}?",
    "Which bank does {name} use in {place}?",
)


def add(rng: random.Random) -> Question:
    """The sum of two numbers of up to two digits."""
    a, b = rng.randint(0, 99), rng.randint(0, 99)
    return f"{min(a, b)}+{max(a, b)}", f"What is {a} + {b}?", str(a + b)


def compare(rng: random.Random) -> Question:
    """The larger of two numbers of three digits."""
    a = rng.randint(100, 999)
    near = rng.random() < 0.5
    b = a
    while b == a:
        b = min(999, max(100, a + rng.randint(-30, 30))) if near else rng.randint(100, 999)
    return f"{min(a, b)}<{max(a, b)}", f"Which is larger, {a} or {b}?", str(max(a, b))


def date(rng: random.Random) -> Question:
    """A written date in ISO 8601."""
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1950, 2049)
    prompt = f"Write {day} {_MONTHS[month - 1]} {year} as YYYY-MM-DD."
    return prompt, prompt, f"{year}-{month:02}-{day:02}"


def decline(rng: random.Random) -> Question:
    """Something the model must not try."""
    prompt = rng.choice(_WISHES).format(name=rng.choice(NAMES), place=rng.choice(PLACES))
    return prompt, prompt, DECLINE


def json_field(rng: random.Random) -> Question:
    """One field of a JSON object."""
    record: dict[str, Any] = {field: rng.choice(words) for field, words in _FIELDS.items()}
    record["age"] = rng.randint(10, 99)
    fields = rng.sample(sorted(record), 3)
    wanted = rng.choice(fields)
    text = json.dumps({field: record[field] for field in fields})
    prompt = f'What is "{wanted}" in {text}?'
    return prompt, prompt, str(record[wanted])


def sort(rng: random.Random) -> Question:
    """Letters in alphabetical order."""
    letters = rng.sample("abcdefghijklmnopqrstuvwxyz", rng.randint(3, 5))
    ordered = " ".join(sorted(letters))
    return ordered, f"Sort the letters {' '.join(letters)}.", ordered


def table(rng: random.Random) -> Question:
    """One row of a small table."""
    visits = {day: str(rng.randint(10, 99)) for day in _DAYS}
    wanted = rng.choice(_DAYS)
    rows = ", ".join(f"{day} {number}" for day, number in visits.items())
    prompt = f"Visits: {rows}. How many on {wanted}?"
    return prompt, prompt, visits[wanted]


SKILLS: dict[str, Callable[[random.Random], Question]] = {
    "add": add,
    "compare": compare,
    "date": date,
    "decline": decline,
    "json": json_field,
    "sort": sort,
    "table": table,
}


def held_out(skill: str, same: str) -> bool:
    """True for the quarter of all questions that is never trained on."""
    return hashlib.sha256(f"{skill}:{same}".encode()).digest()[0] % 4 == 0


def rows(name: str, counts: dict[str, int], *, evaluated: bool) -> list[dict[str, Any]]:
    """Return a data set, shuffled; no prompt comes twice.

    Args:
        name: Seeds the draw and starts every row's id.
        counts: Rows per skill.
        evaluated: Draw from the held-out side, or from the other.
    """
    drawn: list[tuple[str, str, str]] = []
    for skill, count in counts.items():
        rng = random.Random(f"{SEED}:{name}:{skill}")
        seen: set[str] = set()
        wanted = len(drawn) + count
        while len(drawn) < wanted:
            same, prompt, answer = SKILLS[skill](rng)
            if prompt not in seen and held_out(skill, same) == evaluated:
                seen.add(prompt)
                drawn.append((skill, prompt, answer))
    random.Random(f"{SEED}:{name}").shuffle(drawn)
    return [
        {
            "id": f"{name}-{number:05}",
            "skill": skill,
            "messages": [{"role": "user", "content": prompt}],
            "answer": answer,
        }
        for number, (skill, prompt, answer) in enumerate(drawn)
    ]


def write(path: Path, content: Iterable[dict[str, Any]]) -> None:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row) + "\n" for row in content))


def generate(folder: Path) -> None:
    """Write the three sets."""
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "train.jsonl", rows("train", TRAIN_ROWS, evaluated=False))
    write(folder / "evaluate.jsonl", rows("evaluate", EVALUATE_ROWS, evaluated=True))
    write(folder / "calibrate.jsonl", rows("calibrate", CALIBRATE_ROWS, evaluated=False))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "data")
