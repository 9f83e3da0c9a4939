"""How far two reviewers agree: raw agreement and Cohen's kappa on accept / edit / reject.

Only independent verdicts count: those given before the reviewer was shown anybody else's.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from sklearn.metrics import cohen_kappa_score

from medsegr.qa.review.entries import Entry, TurnText, Verdict

Seen = tuple[str, tuple[TurnText, ...]]
"""What was judged: the conversation's id and its turns as they stood."""


@dataclass(frozen=True)
class Agreement:
    """Two reviewers. `shared`: conversations that both judged, as they stood at the time; `raw`: share of them with the
    same verdict; `kappa`: Cohen's. Both are None without a shared conversation, `kappa` also where both gave one and the
    same verdict to everything, since chance alone would then agree as well (0 / 0)."""

    first: str
    second: str
    shared: int
    raw: float | None
    kappa: float | None


def independent_verdicts(entries: Iterable[Entry]) -> dict[str, dict[Seen, Verdict]]:
    """Reviewer -> what was judged -> the last verdict given blind."""
    found: dict[str, dict[Seen, Verdict]] = defaultdict(dict)
    for entry in entries:
        if entry.blind:
            found[entry.reviewer][entry.id, entry.before] = entry.verdict
    return dict(found)


def agreements(entries: Iterable[Entry]) -> list[Agreement]:
    """Every pair of reviewers, in alphabetical order."""
    verdicts = independent_verdicts(entries)
    return [_agreement(a, verdicts[a], b, verdicts[b]) for a, b in combinations(sorted(verdicts), 2)]


def counts(entries: Iterable[Entry]) -> dict[str, Counter[Verdict]]:
    """Reviewer -> number of independent verdicts of each kind."""
    return {who: Counter(given.values()) for who, given in sorted(independent_verdicts(entries).items())}


def _agreement(a: str, of_a: dict[Seen, Verdict], b: str, of_b: dict[Seen, Verdict]) -> Agreement:
    shared = sorted(of_a.keys() & of_b.keys(), key=lambda seen: seen[0])
    if not shared:
        return Agreement(a, b, 0, None, None)
    pairs = [(of_a[seen], of_b[seen]) for seen in shared]
    raw = sum(one is other for one, other in pairs) / len(pairs)
    if len({verdict for pair in pairs for verdict in pair}) == 1:
        return Agreement(a, b, len(pairs), raw, None)
    given_a, given_b = ([str(verdict) for verdict in column] for column in zip(*pairs, strict=True))
    return Agreement(
        a, b, len(pairs), raw, float(cohen_kappa_score(given_a, given_b, labels=list(map(str, Verdict))))
    )
