"""The composed platform as the fault tests use it: questions, clicks, faults, and the account at the end."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from adapters.http_guard import uuid7
from pipelines.stack.compose import engine
from pipelines.stack.compose.engine import Container
from settings import ROOT

RATE: Final = 5.0  # answers and clicks a second, each
SHOPPERS: Final = 12
PATIENT_S: Final = 120.0


@dataclass
class Answer:
    at: float
    status: int  # 0: none came
    seconds: float
    items: int = 0
    degraded: tuple[str, ...] = ()


@dataclass
class Traffic:
    """What was asked and sent while the traffic flowed. `accepted` are ids of clicks that a 202 was given for."""

    prefix: str
    answers: list[Answer] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)

    def bad(self) -> list[Answer]:
        return [one for one in self.answers if one.status != 200 or one.items != 20]

    def said(self) -> Counter[str]:
        return Counter(reason for one in self.answers for reason in one.degraded)


def services() -> dict[str, dict[str, Any]]:
    """The services that stay, of the project under test."""
    return {n: s for n, s in engine.model().items() if not engine.one_shot(s) and not s.get("profiles")}


def containers(service: str) -> list[Container]:
    return [one for one in engine.containers() if one.service == service]


def address(service: str) -> str:
    """http://host:port of a published service."""
    (one, *_) = [one for one in containers(service) if one.published]
    host, port, _ = one.published[0]
    return f"http://{host}:{port}"


def kill_process(one: Container) -> None:
    """kill -9 the container's process, as a crash would: the restart policy is to bring it back.

    `docker kill` counts as a stop by hand, after which the policy rests; so where this user may not signal the process,
    that and a start stand in for it.
    """
    pid = int(engine.ask(["docker", "inspect", "--format", "{{.State.Pid}}", one.id]))
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        engine.ask(["docker", "kill", one.id])
        engine.ask(["docker", "start", one.id])


def started_at(one: Container) -> str:
    return engine.ask(["docker", "inspect", "--format", "{{.State.StartedAt}}", one.id]).strip()


def is_well(service: str) -> bool:
    found = containers(service)
    return bool(found) and all(one.state == "running" and one.health in ("", "healthy") for one in found)


def wait_for(what: str, look: Callable[[], Any], seconds: float, every_s: float = 0.5) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(every_s)
    return found


def feed(client: httpx.Client, url: str, user: str) -> Answer:
    began = time.monotonic()
    try:
        answer = client.post(f"{url}/v1/recommendations", json={"user_id": user, "k": 20})
        body = answer.json() if answer.status_code == 200 else {}
    except httpx.HTTPError:
        return Answer(began, 0, time.monotonic() - began)
    items = len({item["item_id"] for item in body.get("items", ())})
    seconds = time.monotonic() - began
    return Answer(began, answer.status_code, seconds, items, tuple(body.get("degraded", ())))


def an_item(client: httpx.Client, url: str) -> str:
    answer = client.post(f"{url}/v1/recommendations", json={"user_id": "composed-test", "k": 20})
    return str(answer.json()["items"][0]["item_id"])


@contextlib.contextmanager
def traffic() -> Iterator[Traffic]:
    """Light load for as long as the block lasts: feeds, and clicks that are sent until they are accepted."""
    mine = Traffic(prefix=f"ct{uuid7()[-10:]}-")
    stop = threading.Event()
    client = httpx.Client(timeout=15, trust_env=False)
    recommender, collector = address("balancer"), address("collector")
    item = an_item(client, recommender)
    threads = [
        threading.Thread(target=_ask, args=(mine, client, recommender, stop)),
        threading.Thread(target=_click, args=(mine, client, collector, item, stop)),
    ]
    for thread in threads:
        thread.start()
    try:
        yield mine
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        client.close()


def _ask(mine: Traffic, client: httpx.Client, url: str, stop: threading.Event) -> None:
    while not stop.wait(random.expovariate(RATE)):
        mine.answers.append(feed(client, url, f"u{random.randrange(200):05d}"))


def _click(mine: Traffic, client: httpx.Client, url: str, item: str, stop: threading.Event) -> None:
    number = 0
    while not stop.wait(random.expovariate(RATE)):
        event_id, user = f"{mine.prefix}{number}", f"{mine.prefix}{number % SHOPPERS}"
        number += 1
        event = {"type": "product_clicked", "event_id": event_id, "user_id": user, "item_id": item}
        deadline = time.monotonic() + PATIENT_S
        while not _accepted(client, url, event):  # sent again under the same id, as a client of ours would
            if time.monotonic() > deadline:
                mine.unsettled.append(event_id)
                break
            time.sleep(0.2)
        else:
            mine.accepted.append(event_id)


def _accepted(client: httpx.Client, url: str, event: dict[str, Any]) -> bool:
    """Whether Kafka has it: a 202 with its position (without one it may still be in the collector's memory)."""
    try:
        answer = client.post(f"{url}/v1/events", params={"ack": "true"}, json=event)
        return answer.status_code == 202 and (answer.json().get("positions") or [None])[0] is not None
    except (httpx.HTTPError, ValueError):
        return False


def check_conservation(mine: Traffic, wait_s: float = 120) -> dict[str, Any]:
    """Every accepted click is in Kafka, features, lake and analytical store once; all topics add up."""
    done = subprocess.run(
        ["make", "--no-print-directory", "reconcile", "STACK=compose",
         f"ARGS=--shoppers {mine.prefix} --wait {wait_s:g} --json"],
        cwd=ROOT, capture_output=True, text=True, timeout=wait_s + 120, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    account = dict(json.loads(done.stdout.splitlines()[0]))
    wrong = [what for topic in account["topics"] for what in topic["wrong"]] + account["shoppers"]["wrong"]
    assert not wrong, wrong
    assert not mine.unsettled, f"{len(mine.unsettled)} clicks were never accepted"
    assert sorted(account["shoppers"]["event_ids"]) == sorted(mine.accepted)
    assert account["shoppers"]["analytics"] is not None or "analytics" not in services()
    assert sum(account["shoppers"]["features"].values()) == len(mine.accepted) > 0
    return account


def inside(one: Container, program: str) -> str:
    """What a Python program prints in a running container of ours."""
    return engine.ask(["docker", "exec", one.id, "python", "-c", program])


def metric(one: Container, port: int, start: str) -> float:
    """The sum of the samples of a container whose lines begin with `start`."""
    text = inside(one, f"import urllib.request as u; print(u.urlopen('http://127.0.0.1:{port}/metrics').read().decode())")
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(start))
