"""A small language of remarks on films: its words, its grammar and the true reward of a remark.

    remark ::= clause | clause ("and" | "but") clause         at most 4 words
    clause ::= ["not"] ["very"] adjective

The reward needs context: "not" and "very" act on the adjective after them, "but" and "and" on both clauses, and the
value of "funny" depends on the film. So a bag of words cannot score it.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise, product

SUBJECTS = ("comedy", "thriller", "plot")
VERBS = ("was", "felt", "seemed")
ADJECTIVES = ("good", "great", "funny", "tense", "slow", "dull", "bad", "awful")
WORDS = ("not", "very", "and", "but", *ADJECTIVES)
PROMPTS = tuple(f"the {subject} {verb}" for subject in SUBJECTS for verb in VERBS)
MAX_WORDS = 4

# The value of an adjective, for films in general and for kinds of film that differ.
VALUES = {
    "good": 1.0,
    "great": 1.6,
    "funny": 0.6,
    "tense": 0.6,
    "slow": -0.6,
    "dull": -1.0,
    "bad": -1.0,
    "awful": -1.6,
}
VALUES_OF = {"comedy": {"funny": 1.4, "tense": -0.8}, "thriller": {"tense": 1.4, "funny": -0.8, "slow": -1.2}}
UNGRAMMATICAL = -2.0
CLASH = -1.0  # "good and bad", "good but great"

# Relative frequencies of the adjectives, and probabilities of the optional parts.
FREQUENCIES = {"good": 5, "great": 2, "funny": 3, "tense": 3, "slow": 4, "dull": 4, "bad": 5, "awful": 2}
P_NOT, P_VERY, P_SECOND_CLAUSE, P_AND = 0.25, 0.3, 0.4, 0.5

# Possible blindness of a reward model: words it reads as other words, so that it cannot tell them apart.
BLINDNESS = {
    "film": {"comedy": "plot", "thriller": "plot"},
    "negation": {"not": "very"},
    "strength": {"great": "good", "awful": "bad"},
    "conjunction": {"but": "and"},
}

# Errors of an answer that does not parse; the first that applies.
FAULTS = ("nothing said", "foreign word", "word doubled", "breaks off", "words out of place")


def parse(words: Sequence[str]) -> tuple[list[tuple[bool, bool, str]], str | None] | None:
    """Parse a remark into its clauses (negated, intensified, adjective) and the conjunction; None if ungrammatical.

    >>> parse("not very good".split())
    ([(True, True, 'good')], None)
    >>> parse("good and".split()) is None
    True
    """
    if len(words) > MAX_WORDS:
        return None
    clauses: list[tuple[bool, bool, str]] = []
    conjunction = None
    position = 0
    while True:
        negated = words[position : position + 1] == ["not"]
        position += negated
        intensified = words[position : position + 1] == ["very"]
        position += intensified
        if position >= len(words) or words[position] not in ADJECTIVES:
            return None
        clauses.append((negated, intensified, words[position]))
        position += 1
        if position == len(words):
            return clauses, conjunction
        if conjunction is not None or words[position] not in ("and", "but"):
            return None
        conjunction = words[position]
        position += 1


def remark_reward(prompt: str, words: Sequence[str]) -> float:
    """True reward r*(x, y) of a complete remark.

    A clause scores its adjective's value, × 1.5 with "very", × −½ with "not". Two clauses score ¾ of their sum with
    "and", ½ of the first plus the second with "but"; "and" between opposite or "but" between similar opinions costs 1.
    An answer that does not parse scores −2.

    Args:
        prompt: one of PROMPTS; only the film's kind matters.
        words: the answer's words.

    Returns:
        reward, in about [−3.5, 3].

    >>> remark_reward("the plot was", "not very good".split())
    -0.75
    >>> remark_reward("the comedy was", ["funny"]) > remark_reward("the thriller was", ["funny"])
    True
    """
    parsed = parse(list(words))
    if parsed is None:
        return UNGRAMMATICAL
    values = VALUES | VALUES_OF.get(prompt.split()[1], {})
    clauses, conjunction = parsed
    scores = [values[a] * (1.5 if very else 1.0) * (-0.5 if negated else 1.0) for negated, very, a in clauses]
    if conjunction is None:
        return round(scores[0], 6)
    clash = (scores[0] > 0) != (scores[1] > 0) if conjunction == "and" else (scores[0] > 0) == (scores[1] > 0)
    total = 0.75 * (scores[0] + scores[1]) if conjunction == "and" else 0.5 * scores[0] + scores[1]
    return round(total + (CLASH if clash else 0.0), 6)


def fault(words: Sequence[str]) -> str:
    """The error in an answer, one of FAULTS; "" if it parses.

    >>> [fault(answer.split()) for answer in ("not very good", "good good", "good and", "very not good")]
    ['', 'word doubled', 'breaks off', 'words out of place']
    """
    if parse(words) is not None:
        return ""
    if not words:
        return "nothing said"
    if any(word not in WORDS for word in words):
        return "foreign word"
    if any(word == following for word, following in pairwise(words)):
        return "word doubled"
    return "words out of place" if words[-1] in ADJECTIVES else "breaks off"


def sample_remark(rng: random.Random) -> list[str]:
    """Draw a grammatical remark of at most 4 words."""
    while True:
        words = _sample_clause(rng)
        if rng.random() < P_SECOND_CLAUSE:
            words += ["and" if rng.random() < P_AND else "but", *_sample_clause(rng)]
        if len(words) <= MAX_WORDS:
            return words


def sample_noisy_remark(rng: random.Random, p_noise: float) -> list[str]:
    """Draw a remark as in unedited text: with probability `p_noise` one word is missing, doubled or wrong."""
    return with_noise(sample_remark(rng), WORDS, rng, p_noise)[:MAX_WORDS]


def with_noise(words: list[str], vocabulary: Sequence[str], rng: random.Random, p_noise: float) -> list[str]:
    """Return `words`; with probability `p_noise` one is dropped (never the only one), doubled or replaced."""
    if rng.random() >= p_noise:
        return words
    position = rng.randrange(len(words))
    before, word, after = words[:position], words[position], words[position + 1 :]
    fault = rng.randrange(3)
    if fault == 0 and len(words) > 1:
        return before + after
    return [*before, word, word, *after] if fault == 1 else [*before, rng.choice(vocabulary), *after]


def _sample_clause(rng: random.Random) -> list[str]:
    words = ["not"] if rng.random() < P_NOT else []
    words += ["very"] if rng.random() < P_VERY else []
    return [*words, rng.choices(ADJECTIVES, weights=[FREQUENCIES[a] for a in ADJECTIVES])[0]]


def remark_probabilities(p_noise: float = 0.0) -> dict[str, float]:
    """Probability of every text that `sample_noisy_remark` can draw; they sum to 1."""
    clean = {" ".join(words): weight for words, weight in _weighted_remarks()}
    total = sum(clean.values())
    found: dict[str, float] = defaultdict(float)
    for text, weight in clean.items():
        found[text] += (1 - p_noise) * weight / total
        for words, probability in _faulty(text.split()):
            found[" ".join(words[:MAX_WORDS])] += p_noise * probability * weight / total
    return dict(found)


def _weighted_remarks() -> Iterator[tuple[list[str], float]]:
    """Every remark of at most 4 words with its probability, before longer ones are redrawn."""
    clauses = []
    for negated, intensified, adjective in product((False, True), (False, True), ADJECTIVES):
        words = ["not"] * negated + ["very"] * intensified + [adjective]
        weight = (P_NOT if negated else 1 - P_NOT) * (P_VERY if intensified else 1 - P_VERY)
        clauses.append((words, weight * FREQUENCIES[adjective] / sum(FREQUENCIES.values())))
    for words, weight in clauses:
        yield words, (1 - P_SECOND_CLAUSE) * weight
        for (more, other), conjunction in product(clauses, ("and", "but")):
            if len(words) + 1 + len(more) <= MAX_WORDS:
                likely = P_AND if conjunction == "and" else 1 - P_AND
                yield [*words, conjunction, *more], P_SECOND_CLAUSE * likely * weight * other


def _faulty(words: list[str]) -> Iterator[tuple[list[str], float]]:
    """Every text that one error can make of a remark, with its probability."""
    each = 1 / (3 * len(words))
    for at in range(len(words)):
        before, word, after = words[:at], words[at], words[at + 1 :]
        alone = len(words) == 1  # a single word is never dropped, but replaced
        if not alone:
            yield [*before, *after], each
        yield [*before, word, word, *after], each
        for other in WORDS:
            yield [*before, other, *after], each * (2 if alone else 1) / len(WORDS)
