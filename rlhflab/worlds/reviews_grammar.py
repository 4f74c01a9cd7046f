"""A larger language of film reviews: its words, its grammar, and the reward of a review, feature by feature.

    review   ::= clause (connective clause)*                     at most 24 words
    clause   ::= [opener] article aspect [frequency] verb ["not"] ([degree] adjective | [amount] comparison)
    comparison ::= comparative "than" (standard | article book)

It extends `grammar`: "not" and degrees act on what follows, connectives and openers on whole clauses, and the value of
"funny" depends on the film and the aspect it describes. No bag of words can score it. The true reward is the sum of the
FEATURES below, each times its entry in WEIGHTS; a reward model that does not see one of them can be over-optimised.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations, pairwise
from typing import NamedTuple

from rlhflab.worlds.grammar import with_noise

KINDS = ("comedy", "thriller", "horror", "romance", "drama", "documentary")
LEADS = ("in short", "to me", "all told")
PROMPTS = tuple(f"this {kind} , {lead} ," for kind in KINDS for lead in LEADS)
MAX_WORDS = 24

ASPECTS = {
    "story": (
        "plot", "story", "script", "dialogue", "ending", "opening", "finale", "twist", "premise", "message", "subject",
    ),
    "people": (
        "acting", "cast", "lead", "villain", "hero", "sidekick", "narrator", "couple", "chemistry", "monster",
        "narration", "humour",
    ),
    "craft": (
        "music", "soundtrack", "camera", "lighting", "editing", "sound", "colour", "set", "design", "photography",
        "research",
    ),
    "mood": ("pace", "mood", "tone", "atmosphere", "suspense", "style", "energy", "world"),
}  # fmt: skip
ARTICLES = ("the", "its")
VERBS = ("was", "felt", "seemed", "looked", "remained", "stayed", "appeared", "proved", "became")
# Values of words for films in general, by the aspects they can describe; for other aspects they mean nothing.
ADJECTIVES = {
    "any": {
        "superb": 1.4, "brilliant": 1.4, "wonderful": 1.3, "great": 1.3, "excellent": 1.3, "splendid": 1.2,
        "memorable": 1.2, "lovely": 1.1, "strong": 1.1, "good": 1.0, "nice": 0.8, "pleasant": 0.7, "solid": 0.7,
        "fine": 0.6, "decent": 0.5,
        "forgettable": -0.6, "bland": -0.7, "mediocre": -0.8, "weak": -0.9, "bad": -1.0, "poor": -1.0,
        "dull": -1.0, "lousy": -1.1, "tedious": -1.1, "boring": -1.2, "awful": -1.3, "terrible": -1.4, "dreadful": -1.4,
    },
    "story": {
        "gripping": 1.3, "original": 1.2, "clever": 1.1, "surprising": 0.9, "coherent": 0.6,
        "thin": -0.6, "predictable": -0.7, "confusing": -0.8, "muddled": -0.9, "contrived": -1.1,
    },
    "people": {
        "convincing": 1.3, "charming": 1.1, "graceful": 0.8, "natural": 0.7, "vivid": 0.6,
        "flat": -0.7, "stiff": -0.8, "wooden": -1.0, "annoying": -1.2,
    },
    "craft": {
        "beautiful": 1.3, "haunting": 1.2, "elegant": 1.0, "crisp": 0.7, "careful": 0.6,
        "loud": -0.5, "blurry": -0.7, "cheap": -0.8, "clumsy": -0.9, "ugly": -1.2,
    },
    "mood": {
        "funny": 0.6, "tense": 0.5, "creepy": -0.3, "romantic": 0.4, "sad": -0.3, "dark": -0.2, "light": 0.3,
        "warm": 0.7, "violent": -0.6, "silly": -0.5, "slow": -0.7, "honest": 0.6,
    },
}  # fmt: skip
FITS = {name: {name} for name in ASPECTS} | {"any": set(ASPECTS), "mood": {"mood", "story", "people"}}
# Where a kind of film differs, and the aspects that count for more in it.
VALUES_OF = {
    "comedy": {"funny": 2.0, "silly": 1.0, "light": 1.2, "tense": -0.8, "sad": -1.0, "dark": -0.8},
    "thriller": {"tense": 2.0, "creepy": 1.0, "dark": 1.2, "funny": -0.8, "light": -0.8, "slow": -1.2},
    "horror": {"creepy": 2.0, "dark": 1.3, "violent": 0.8, "tense": 1.2, "romantic": -0.8, "light": -1.0},
    "romance": {"romantic": 2.0, "warm": 1.3, "light": 1.0, "sad": 0.8, "creepy": -1.2, "violent": -1.2},
    "drama": {"sad": 2.0, "honest": 1.4, "dark": 0.8, "slow": 0.3, "silly": -1.0, "light": -0.6},
    "documentary": {"honest": 2.0, "careful": 1.4, "slow": -0.2, "romantic": -0.6, "loud": -1.0},
}
KEY_ASPECTS = {
    "comedy": {"humour", "dialogue", "cast"},
    "thriller": {"plot", "twist", "suspense"},
    "horror": {"monster", "atmosphere", "sound"},
    "romance": {"couple", "chemistry", "ending"},
    "drama": {"acting", "script", "lead"},
    "documentary": {"subject", "research", "narration"},
}
KEY_FACTOR = 1.5
COMPARATIVES = {
    "better": 1.2, "stronger": 1.1, "richer": 0.9, "sharper": 0.8,
    "slower": -0.7, "duller": -0.9, "weaker": -1.0, "worse": -1.2,
}  # fmt: skip
# What multiplies a clause's worth; all factors of its words apply, so "never" and "not" cancel in part.
FREQUENCIES = {"always": 1.1, "often": 0.9, "sometimes": 0.6, "never": -0.6, "rarely": -0.4}
DEGREES = {
    "extremely": 2.0, "incredibly": 2.0, "absolutely": 2.0, "truly": 1.6, "really": 1.5, "very": 1.5,
    "quite": 0.85, "rather": 0.8, "fairly": 0.75, "somewhat": 0.6, "mildly": 0.5, "slightly": 0.4,
}  # fmt: skip
AMOUNTS = {"far": 1.3, "much": 1.2, "barely": 0.3}
STANDARDS = {"expected": 1.0, "most": 1.0, "usual": 0.9, "average": 0.7}
BOOKS = {"novel": 1.0, "book": 1.0, "sequel": 0.8, "trailer": 0.8}
FACTORS = {"not": -0.5, **FREQUENCIES, **DEGREES, **AMOUNTS, **STANDARDS, **BOOKS}
# +1 wants like opinions on both sides, −1 opposite ones, 0 does not care; an opener wants a liking or a dislike.
CONNECTIVES = {"and": 1, "plus": 1, "but": -1, "yet": -1, "though": -1, "while": 0, ",": 0, ";": 0}
OPENERS = {
    "luckily": 1, "happily": 1, "thankfully": 1, "sadly": -1, "unfortunately": -1, "regrettably": -1,
    "overall": 0, "honestly": 0, "frankly": 0, "personally": 0,
}  # fmt: skip

WEIGHTS = {
    "sentiment": 1.0,
    "coherence": 1.0,
    "detail": 0.5,
    "repetition": -1.0,
    "hype": -1.0,
    "faults": -2.0,
}
FEATURES = tuple(WEIGHTS)
REWARD_RANGE = (-33.0, 14.0)

# Each word has a part of speech, one letter; a clause is a pattern of letters.
_PARTS = {
    "D": ARTICLES, "V": VERBS, "N": ("not",), "F": FREQUENCIES, "G": DEGREES, "M": AMOUNTS, "C": COMPARATIVES,
    "T": ("than",), "S": STANDARDS, "B": BOOKS, "O": OPENERS,
    "A": [aspect for group in ASPECTS.values() for aspect in group],
    "J": [adjective for group in ADJECTIVES.values() for adjective in group],
}  # fmt: skip
_PART_OF = {word: letter for letter, words in _PARTS.items() for word in words}
_CLAUSE = re.compile("O?DAF?VN?(G?J|M?CT(S|DB))")
_BEGINNING = re.compile("O?(D(AF?(VN?[GM]?(J|C(TD?)?)?)?)?)?")
_GROUP_OF = {word: name for table in (ASPECTS, ADJECTIVES) for name, words in table.items() for word in words}
_VALUES = {
    kind: COMPARATIVES | {a: v for group in ADJECTIVES.values() for a, v in group.items()} | own
    for kind, own in VALUES_OF.items()
}
WORDS = (*_PART_OF, *CONNECTIVES)


class Clause(NamedTuple):
    """The content of one clause.

    Attributes:
        aspect, opinion: the subject, and the adjective or comparative.
        worth: value of the clause for this kind of film; 0 if the adjective does not fit the aspect.
        strong: how many of its words are intensifiers.
        opener: +1 or −1 if it begins with a word of liking or dislike, else 0.
    """

    aspect: str
    opinion: str
    worth: float
    strong: int
    opener: int


@lru_cache(maxsize=1 << 17)
def parse_clause(kind: str, words: tuple[str, ...]) -> tuple[Clause | None, float]:
    """Parse one clause of a review of a `kind` of film.

    Returns:
        the clause, or None if it does not parse;
        its fault: 0 if it parses, else 1 minus half the fraction of its words that begin a clause, in [½, 1].

    >>> parse_clause("comedy", tuple("the plot was not very good".split()))
    (Clause(aspect='plot', opinion='good', worth=-0.75, strong=1, opener=0), 0.0)
    >>> parse_clause("comedy", tuple("the plot was very".split()))
    (None, 0.5)
    """
    parts = "".join(_PART_OF.get(word, "?") for word in words)
    if not _CLAUSE.fullmatch(parts):
        begun = _BEGINNING.match(parts)
        return None, 1 - 0.5 * (begun.end() / len(parts) if begun and parts else 0.0)
    aspect = words[parts.index("A")]
    opinion = words[parts.index("J" if "J" in parts else "C")]
    factor = math.prod(FACTORS.get(word, 1.0) for word in words)
    fits = opinion in COMPARATIVES or _GROUP_OF[aspect] in FITS[_GROUP_OF[opinion]]
    worth = _VALUES[kind][opinion] * factor * (KEY_FACTOR if aspect in KEY_ASPECTS[kind] else 1.0)
    strong = sum(FACTORS.get(word, 1.0) > 1.0 for word in words)
    return Clause(aspect, opinion, round(worth, 6) if fits else 0.0, strong, OPENERS.get(words[0], 0)), 0.0


@lru_cache(maxsize=1 << 17)
def _features(kind: str, words: tuple[str, ...]) -> tuple[float, ...]:
    """The features in the order of FEATURES; see `review_features`."""
    at = [i for i, word in enumerate(words) if word in CONNECTIVES]
    edges = zip([-1, *at], [*at, len(words)], strict=True)
    parsed = [parse_clause(kind, words[begin + 1 : end]) for begin, end in edges]
    clauses = [clause for clause, _ in parsed if clause]
    signals = [clause.opener * clause.worth for clause in clauses]
    for position, ((left, _), (right, _)) in zip(at, pairwise(parsed), strict=True):
        if left and right:
            signals.append(CONNECTIVES[words[position]] * left.worth * right.worth)
    signs = [math.copysign(1.0, signal) for signal in signals if signal]
    aspects = {clause.aspect for clause in clauses}
    pairs = combinations(clauses, 2)
    return (
        sum(clause.worth for clause in clauses) / math.sqrt(len(clauses) or 1),
        sum(signs) / (len(signs) or 1),
        min(len(aspects), 4) / 4,
        float(sum((a.aspect == b.aspect) + (a.opinion == b.opinion) for a, b in pairs)),
        float(math.comb(sum(clause.strong for clause in clauses), 2)),
        math.sqrt(sum(fault for _, fault in parsed)),
    )


def review_features(prompt: str, words: Sequence[str]) -> dict[str, float]:
    """The features of a review that the true reward depends on; of the prompt, only the kind of film matters.

    sentiment   Σ worth / √n over the n clauses that parse: more clauses count more, but less than proportionally. A
                clause's worth is its adjective's value in this kind of film, times the factors of its words, × 1.5 for
                a key aspect of this kind of film; 0 if the adjective does not fit. In [−12.5, 12.5].
    coherence   mean over connectives and openers that imply a relation: +1 if the opinions agree with it, −1 if they do
                not ("good and bad", "sadly … superb"). In [−1, 1].
    detail      different aspects named, at most 4, over 4. In [0, 1].
    repetition  pairs of clauses with the same aspect, and with the same opinion (adjective or comparative): a second
                mention counts 1, a third 3, a fifth 10. In [0, 20].
    hype        pairs of intensifiers ("very", "always", "far"), in any clauses: the first is free, a second counts 1, a
                third 3, a sixth 15. In [0, 15].
    faults      √Σ of the clauses' faults: 0 for a grammatical review, ½–1 under the root for each clause that does not
                parse, including an empty one between two connectives. In [0, 5].

    Args:
        prompt: one of PROMPTS.
        words: the answer's words; a word outside the vocabulary makes its clause faulty.

    Returns:
        one value per feature, in the order of FEATURES.
    """
    return dict(zip(FEATURES, _features(prompt.split()[1], tuple(words)), strict=True))


def review_reward(prompt: str, words: Sequence[str]) -> float:
    """True reward r*(x, y) = Σ_f WEIGHTS[f]·feature f, within REWARD_RANGE.

    >>> review_reward("this comedy , to me ,", "the plot was good".split())
    1.125
    """
    return sum(WEIGHTS[name] * value for name, value in review_features(prompt, words).items())


P_FEWER, P_OPENER, P_FREQUENCY, P_NOT, P_DEGREE, P_COMPARISON = (0.3, 0.75, 0.95), 0.15, 0.15, 0.2, 0.45, 0.12
P_ITS, P_BOOK, P_GENERAL, P_UNFIT = 0.25, 0.4, 0.5, 0.08


def sample_review(rng: random.Random) -> list[str]:
    """Draw a grammatical review of at most 24 words, two clauses on average; its opinions may well clash."""
    while True:
        words = _sample_clause(rng)
        extent = rng.random()
        for enough in P_FEWER:
            if extent < enough:
                break
            words += [rng.choice(list(CONNECTIVES)), *_sample_clause(rng)]
        if len(words) <= MAX_WORDS:
            return words


def sample_noisy_review(rng: random.Random, p_noise: float) -> list[str]:
    """Draw a review as in unedited text: with probability `p_noise` one word is missing, doubled or wrong."""
    return with_noise(sample_review(rng), WORDS, rng, p_noise)[:MAX_WORDS]


def _sample_clause(rng: random.Random) -> list[str]:
    group = rng.choice(list(ASPECTS))
    words = [rng.choice(list(OPENERS))] if rng.random() < P_OPENER else []
    words += [_article(rng), rng.choice(ASPECTS[group])]
    words += [rng.choice(list(FREQUENCIES))] if rng.random() < P_FREQUENCY else []
    words += [rng.choice(VERBS)]
    words += ["not"] if rng.random() < P_NOT else []
    if rng.random() < P_COMPARISON:
        words += [rng.choice(list(AMOUNTS))] if rng.random() < P_DEGREE else []
        words += [rng.choice(list(COMPARATIVES)), "than"]
        book = rng.random() < P_BOOK
        return [
            *words,
            *([_article(rng), rng.choice(list(BOOKS))] if book else [rng.choice(list(STANDARDS))]),
        ]
    words += [rng.choice(list(DEGREES))] if rng.random() < P_DEGREE else []
    if rng.random() < P_GENERAL:
        said = "any"
    elif rng.random() < P_UNFIT:
        said = rng.choice(list(ADJECTIVES))
    else:
        said = rng.choice([name for name, fit in FITS.items() if group in fit and name != "any"])
    return [*words, rng.choice(list(ADJECTIVES[said]))]


def _article(rng: random.Random) -> str:
    return "its" if rng.random() < P_ITS else "the"
