"""From the findings of some windows in a row to one verdict, with its reasons in words.

Breakage (nulls, ranges, silence) counts at once. Drift counts when the newest windows agree; until then it
is a warning, so that one odd window retrains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from models.drift.base import Level
from models.drift.suite import KINDS, Finding, Kind
from models.drift.watched import AT_ONCE, PERSISTENCE, UNKNOWN_OF_NEWCOMERS

WORDS: Final[dict[str, str]] = {
    "data": "the inputs moved", "prediction": "the scores moved", "label": "what is shown is clicked at another rate",
    "concept": "the same scores are clicked at another rate than promised", "operations": "the traffic itself changed",
}  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """`level` of all kinds together; `findings` are the newest window's, as they count after persistence."""

    level: Level
    kinds: dict[Kind, Level]
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]

    @property
    def breakage(self) -> bool:
        """Something upstream broke: mend it, and train nothing on what came meanwhile."""
        return any(f.decides and f.level == Level.DRIFT and broken(f) for f in self.findings)


def decide(windows: Sequence[Sequence[Finding]], *, persistence: int = PERSISTENCE) -> Verdict:
    """The verdict on the newest of `windows` (newest first; none at all is insufficient data)."""
    newest, earlier = (windows[0], windows[1:persistence]) if windows else ((), ())
    agreed = {f.key for f in newest if f.level == Level.DRIFT}
    for window in earlier:
        agreed &= {f.key for f in window if f.level == Level.DRIFT}
    patient = len(earlier) < persistence - 1  # not enough windows to agree
    findings, reasons = [], []
    for finding in newest:
        if finding.level == Level.DRIFT and not broken(finding) and (patient or finding.key not in agreed):
            detail = f"{finding.detail} (not yet {persistence} windows)".strip()
            finding = replace(finding, level=Level.WARN, detail=detail)
        findings.append(finding)
        if finding.decides and finding.level >= Level.WARN:
            reasons.append(reason(finding))
    kinds = {kind: _level([f for f in findings if f.kind == kind]) for kind in KINDS}
    reasons = [f"{kind}: {WORDS[kind]}" for kind in KINDS if kinds[kind] == Level.DRIFT] + reasons
    level = max(kinds.values())
    if level == Level.HEALTHY and kinds["prediction"] == Level.INSUFFICIENT_DATA:
        level = Level.INSUFFICIENT_DATA  # enough to count requests, too little to judge them
    return Verdict(level, kinds, tuple(findings), tuple(reasons))


def broken(finding: Finding) -> bool:
    """Whether this finding, if it is drift, means that something upstream broke rather than that the world moved."""
    newcomers = finding.detector == "null_share" and finding.subject in UNKNOWN_OF_NEWCOMERS
    return finding.detector in AT_ONCE and not newcomers


def reason(finding: Finding) -> str:
    """One finding in words."""
    value = "" if finding.value is None else f" {finding.value:.3f}"
    chance = "" if finding.p_value is None else f", p {finding.p_value:.1e}"
    detail = f" ({finding.detail})" if finding.detail else ""
    return f"{finding.level.word}: {finding.subject}: {finding.detector}{value}{chance}{detail}"


def _level(findings: Sequence[Finding]) -> Level:
    """The worst of what decides; insufficient data only if nothing at all could be said."""
    return max((f.level for f in findings if f.decides), default=Level.INSUFFICIENT_DATA)
