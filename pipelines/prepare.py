"""The jobs of the composed platform before it serves: `python -m pipelines.prepare topics | seed | train`.

The same steps as `make demo`, with the same stamps: what is up to date is not done again, so every start may run them.
It starts nothing; Kafka, Redis, MLflow and Triton are there already, or it says which is not.
"""

from __future__ import annotations

import sys

from adapters.errors import MinimartError
from adapters.kafka import ensure_topics
from pipelines.stack import preflight, volumes
from pipelines.stack.demo import steps
from pipelines.stack.show import console
from pipelines.stack.steps import Runner
from settings import Settings, load_settings

TRAIN = "models"


def topics(settings: Settings) -> None:
    """Make the topics that are not there yet. Raises Misconfigured where this version may not use the volumes."""
    console.print(volumes.check(settings))
    made = ensure_topics(settings.kafka, settings.kafka_partitions, timeout_s=60)
    console.print(f"topics: {len(made)} made" if made else "topics: all there")


def prepare(settings: Settings, *, train: bool) -> None:
    """Training alone, or all that comes before it. Raises Misconfigured where the volumes hold other data."""
    identity = preflight.identity_of(settings)
    console.print(volumes.check(settings))
    runner = Runner(settings.home, console)
    for step in steps(identity):
        if (step.name == TRAIN) == train:
            runner.run(step)


def main() -> None:
    settings, asked = load_settings(), sys.argv[1:]
    try:
        match asked:
            case ["topics"]:
                topics(settings)
            case ["seed" | "train"]:
                prepare(settings, train=asked == ["train"])
            case _:
                raise SystemExit("usage: python -m pipelines.prepare topics | seed | train")
    except MinimartError as error:
        raise SystemExit(f"{' '.join(asked)}: {error.detail}") from None


if __name__ == "__main__":
    main()
