"""Asks the composed platform for its first recommendation and says where everything is.

`python -m pipelines.welcome name=address ...`; ends with 0 only when a whole feed was answered.
"""

from __future__ import annotations

import sys
import time

import httpx

from adapters import pointers
from adapters.errors import MinimartError
from settings import Settings, load_settings

K = 10
PATIENCE_S = 60.0


def first_answer(settings: Settings, patience_s: float = PATIENCE_S) -> httpx.Response:
    """A feed of K items for a shopper that the models know. Raises SystemExit when none comes in time."""
    body = {"user_id": known_shopper(settings), "k": K}
    deadline, said = time.monotonic() + patience_s, ""
    while time.monotonic() < deadline:
        try:
            answer = httpx.post(f"{settings.url('recommender')}/v1/recommendations", json=body, timeout=10)
            if answer.status_code == 200 and len(answer.json()["items"]) == K:
                return answer
            said = f"HTTP {answer.status_code}: {answer.text[:300]}"
        except httpx.HTTPError as error:
            said = repr(error)
        time.sleep(1)
    raise SystemExit(f"no recommendation came within {patience_s:.0f} s ({said}); see docker compose logs recommender")


def known_shopper(settings: Settings) -> str:
    """A shopper of the published models, else a visitor."""
    try:
        return pointers.load_current(settings.published)["two-tower"].path("users.txt").read_text().split("\n", 1)[0]
    except (MinimartError, OSError, KeyError):
        return "visitor"


def welcome(answer: httpx.Response, places: list[str]) -> str:
    """What a person reads last: that it answers, how to log in, and in the last line where things are."""
    body = answer.json()
    shown = ", ".join(item["item_id"] for item in body["items"][:3])
    where = "   ".join(f"{name}: {address}" for name, address in (place.split("=", 1) for place in places))
    return (
        f"first recommendation: {shown} and {K - 3} more in {body['timings_ms']['total']:.0f} ms, "
        f"degraded: {', '.join(body['degraded']) or 'no'}\n"
        "logins of MLflow and Grafana: minimart, with what `docker compose run --rm secrets show` prints\n"
        f"{where}"
    )


def main() -> None:
    print(welcome(first_answer(load_settings()), sys.argv[1:]), flush=True)


if __name__ == "__main__":
    main()
