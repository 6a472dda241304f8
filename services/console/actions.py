"""What an operator may do, and what it will cause, in words. The console asks; controller and simulator decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from services.console import words
from services.console.neighbours import Answer, Neighbours

_log = structlog.get_logger()


@dataclass(frozen=True)
class Action:
    """`causes` is said before it is confirmed; `danger` colours the button."""

    name: str
    title: str
    causes: str
    danger: bool = False


ROLLOUT: Final[Mapping[str, Action]] = {
    action.name: action
    for action in (
        Action("check", "Check for drift now", "The newest window is compared with its baseline; takes a few seconds."),
        Action("retrain", "Retrain", "A challenger is trained on the newest data, gated, and tried step by step."),
        Action("hold", "Hold",
               "No rollout goes a step further, and none begins, until it is resumed. Guardrails stay on."),
        Action("resume", "Resume", "The hold ends; rollouts go on by themselves."),
        Action("promote", "Promote", "The challenger becomes the champion at once, for every shopper.", danger=True),
        Action("rollback", "Roll back",
               "The challenger is dropped; without one, the champion before answers again. Takes under 5 seconds.",
               danger=True),
    )
}  # fmt: skip
SCENARIO: Final = "scenario-"
NORMAL: Final = "normal"


def action_of(name: str) -> Action | None:
    """The action of that name; scenarios are `scenario-<switch>`, and `scenario-normal` turns all off."""
    if not name.startswith(SCENARIO):
        return ROLLOUT.get(name)
    switch = name.removeprefix(SCENARIO)
    if switch == NORMAL:
        return Action(name, "Back to normal", "Every switch of the simulated marketplace is turned off.")
    if switch not in words.SCENARIOS:
        return None
    causes = f"The simulated shoppers change at once ({words.SHARE:.0%} strong). Drift should be seen within minutes."
    return Action(name, words.scenario(switch), causes)


async def do(neighbours: Neighbours, action: Action, reason: str, actor: str) -> Answer:
    """Ask for it, and log who did and why, whatever comes of it."""
    if action.name.startswith(SCENARIO):
        switch = action.name.removeprefix(SCENARIO)
        body: dict[str, Any] = {"reset": True} if switch == NORMAL else {switch: words.SHARE}
        answer = await neighbours.post("simulator", "/v1/scenario", body)
    else:
        body = {"reason": reason, "actor": actor}
        answer = await neighbours.post("controller", f"/v1/rollout/{action.name}", body)
    _log.info(
        "operator_action", action=action.name, actor=actor, reason=reason, accepted=answer.value is not None,
        refused=answer.away,
    )  # fmt: skip
    return answer
