"""The README's numbers, as Markdown, from the result files under `bench/results`.

A result that was never measured is left out and said so; nothing is typed here but words.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).resolve().parent / "results"
PROTOCOL_RESULTS: Final = ("leave_one_out_grocery", "temporal_grocery", "strong_generalisation_grocery")
PUBLIC_RESULTS: Final = {
    "leave_one_out_beauty": "Beauty", "leave_one_out_toys": "Toys", "leave_one_out_sports": "Sports",
}  # fmt: skip
STAGES: Final = ("retrieve", "features", "prerank", "rank", "rerank", "total")


def numbers() -> str:
    """All tables; each names its command, machine, commit and seed."""
    sections = (
        ("demo", demo), ("load", load), ("funnel_scale", funnel_scale), ("capacity", capacity),
        ("feature_serving", serving), ("feature_scale", scale), ("materialize", materialize),
        ("feature_stream", stream), ("batching", batching), ("compression", compression), ("rankers", rankers),
        ("diversity", diversity), ("gpu", gpu), ("funnel", quality), ("amazon_grocery", quality),
    )  # fmt: skip
    parts = []
    for name, render in sections:
        path = RESULTS / f"{name}.json"
        if path.exists():
            parts.append(render(json.loads(path.read_text(encoding="utf-8"))))
    if public := public_sets():
        parts.append(public)
    return "\n\n".join(parts) or "Nothing is measured yet: `make bench`."


def source(result: Mapping[str, Any]) -> str:
    """Where a result comes from, in one line."""
    machine = result["hardware"]
    seed = f", seed {result['seed']}" if "seed" in result else ""
    return (
        f"<sub>{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB; Python {machine['python']}; "
        f"commit {str(result['commit'])[:12]}{seed}; {str(result['at'])[:10]}</sub>"
    )


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; every column but the first is right-aligned."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def demo(result: Mapping[str, Any]) -> str:
    """How long `make demo` took and what it holds in memory."""
    slow = [s for s in result["steps"] if s["seconds"] >= 2]
    rows = [[s["name"], f"{s['seconds']:.0f}"] for s in slow]
    rows.append(["**all steps**", f"**{result['seconds_total']:.0f}**"])
    held = sorted(result["memory_mib"].items(), key=lambda pair: -pair[1])
    memory = ", ".join(f"{part} {mib:.0f}" for part, mib in held)
    return (
        "**`make demo`**, packages downloaded:\n\n" + table(["step", "seconds"], rows) + "\n\n"
        f"Memory of the running platform: {result['memory_mib_total'] / 1024:.1f} GiB (MiB: {memory}).\n\n"
        + source(result)
    )


def load(result: Mapping[str, Any]) -> str:
    """Latency by stage under open-loop load."""
    stages = [(s, result["stages_ms"][s]) for s in STAGES if result["stages_ms"].get(s)]
    rows = [[f"{name} (server)", *_times(times)] for name, times in stages]
    rows.append(["**as the client waits**", *_times(result["latency_ms"])])
    return (
        f"**`make load RATE={result['rate']:g} SECONDS={result['seconds']:g}`**, open loop, with simulator, stream "
        f"worker and the load driver on the same machine: {result['answered']} of {result['requests']} answered, "
        f"{result['errors']} errors, {result['shed']} shed, {result['degraded_share']:.1%} degraded. Milliseconds:\n\n"
        + table(["stage", "P50", "P95", "P99", "max"], rows) + f"\n\n{source(result)}"
    )  # fmt: skip


def funnel_scale(result: Mapping[str, Any]) -> str:
    """The whole funnel at a large catalogue: latency by rate, and CPU against the floors of its kernels."""
    rows = [
        [f"{row['rate']:.0f}", *(str(row[name]) for name in ("answered", "shed", "errors")), *_times(row["latency_ms"])]
        for row in (*result["rows"], result["overload"]) if row["latency_ms"]
    ]  # fmt: skip
    floors = ", ".join(f"{name} {ms:.2f}" for name, ms in result["floors_ms"].items())
    renewals = ", ".join(f"{name} {ms:,.1f}" for name, ms in result.get("renewal_ms", {}).items()) or "not measured:"
    own = ", ".join(f"{name} {ms:.2f}" for name, ms in result["own_ms"].items())
    scale, over, cpu, floor = result["scale"], result["overload"], result["cpu_ms_per_answer"], result["floor_ms"]
    return (
        f"**The funnel over HTTP at {scale['items']:,} items and {scale['users']:,} shoppers** "
        f"(`{result['command']}`), {result['workers']} worker(s), the load driver on the same machine; the "
        f"ranker is {'a student of ' if scale.get('students') else ''}{scale['trees']} trees of {scale['leaves']} "
        f"leaves. The last row is the overload. Milliseconds as the client waits:\n\n"
        + table(["requests/s", "answered", "shed", "errors", "P50", "P95", "P99", "max"], rows)
        + f"\n\nAn answer costs {cpu} ms of CPU, {result['cpu_over_floor']} times its kernels alone ({floor} ms: "
        f"{floors}), {result['cpu_over_row']} times the same one after the other ({result['in_a_row_ms']} ms). "
        f"Alone and undisturbed: {own} ms. A P99 of "
        f"{result['goal_p99_ms']:g} ms at {result['goal_rate']:g}/s would afford {result['affordable_ms']} ms (queues "
        f"simulated). In the overload {over['goodput_of_peak']:.0%} of the best throughput remain, and a 429 takes "
        f"{over['shed_latency_ms']['p50']:.0f} ms (P99 {over['shed_latency_ms']['p99']:.0f}). Recall of the index at "
        f"1,000: {result['recall_at_1000']:.3f}. Memory: {result['memory_mib']:,} MiB. "
        f"A renewal of the shelf, once a second in every process, by what has changed: {renewals} ms."
        f"\n\n{source(result)}"
    )  # fmt: skip


def capacity(result: Mapping[str, Any]) -> str:
    """What the target needs by shape of machine, and how well the simulation foretold this one."""
    rows = [
        [str(row["cores"]), f"{row['rps_of_one']:,}", f"{row['replicas']:,}", f"{row['cores_in_all']:,}",
         f"{row['memory_gib_in_all']:,}", f"{row['price_per_hour']:,}"]
        for row in result["machines"] if row["replicas"]
    ]  # fmt: skip
    target, first = result["target"], result["breaks_first"][0]
    return (
        f"**{target['rps']:,} requests a second with a P99 below {target['p99_ms']:g} ms** (`make capacity`, simulated "
        f"from this machine, where what was foretold of one and two workers under rising load is off by a factor of "
        f"{result['median_off_by_factor']} (P50) and {result['p99_off_by_factor']} (P99) in the middle of all steps; "
        f"full first: {first['part']}, at {first['full_at_rps']:,}/s; prices are an assumption):\n\n"
        + table(["cores", "requests/s of one", "machines", "cores in all", "GiB in all", "price an hour"], rows)
        + f"\n\n{source(result)}"
    )  # fmt: skip


def serving(result: Mapping[str, Any]) -> str:
    """Latency of feature serving beside Feast's SDK."""
    rows = [[name, *(f"{times[p]:.2f}" for p in ("p50", "p95", "p99"))] for name, times in result["latency_ms"].items()]
    items = result["items"]
    ratios = ", ".join(f"{who} {times:g} times" for who, times in result["times_ours_at_items"].items())
    return (
        f"**Feature serving**, one Redis, equal values: `serving` is 1 shopper x 100 features and {items} items x 20, "
        f"`items` the {items} items alone (`{result['command']}`). Milliseconds:\n\n"
        + table(["request: who answers", "P50", "P95", "P99"], rows)
        + f"\n\nAs long as ours, in process, at {items} items (medians): {ratios}.\n\n{source(result)}"
    )  # fmt: skip


def scale(result: Mapping[str, Any]) -> str:
    """1,000 features of many users: measured, and what a million users would be."""
    measured, million = result["measured"], result["extrapolated_to_a_million_users"]
    times = result["latency_ms"]
    return (
        f"**{result['features']:,} features x {result['users']:,} users** (`{result['command']}`): "
        f"{measured['redis_bytes_per_user'] / 1024:.1f} KiB of Redis per user, loaded at "
        f"{measured['rows_per_second']:,} rows a second; all features of one user in {times['p50']:.1f} ms (P50), "
        f"{times['p99']:.1f} ms (P99). Extrapolated, not measured, for a million users: {million['redis_gib']:g} GiB, "
        f"{million['minutes_to_load']:g} minutes to load.\n\n{source(result)}"
    )


def materialize(result: Mapping[str, Any]) -> str:
    """Rows a second beside Feast's own path."""
    found = result["rows_per_second"]
    rows = [[what, who, f"{rate:,}"] for what, rates in found.items() for who, rate in rates.items()]
    sizes = f"{result['items']:,} items; {result['moments']:,} moments in {result['clicks']:,} clicks"
    return (
        f"**Materialising and the point-in-time join**, equal results ({sizes}; `{result['command']}`). Rows a second:"
        f"\n\n{table(['step', 'who', 'rows/s'], rows)}\n\n{source(result)}"
    )


def stream(result: Mapping[str, Any]) -> str:
    """Events a second of the stream workers beside reading alone, and how soon a feature can be read."""
    found, names = result["events_per_second"], {"consume_and_decode": "only read and decoded"}
    rows = [
        [names.get(who, "counted exactly once"), n, f"{rate:,}"] for who, of in found.items() for n, rate in of.items()
    ]  # fmt: skip
    fresh = [
        [f"{at['rate']:,}", f"{at['share']:.0%}", stage, *_times(times)]
        for at in result["freshness"] for stage, times in at["times_ms"].items()
    ]  # fmt: skip
    return (
        f"**The feature stream**, {result['features']} features, {result['partitions']} partitions, an hour's "
        f"backlog of {result['events']:,} hard events (`{result['command']}`):\n\n"
        f"{table(['what', 'processes', 'events/s'], rows)}\n\nFrom sending an event to reading its feature, the "
        f"sender on the same cores, milliseconds:\n\n"
        f"{table(['events/s', 'of the best', 'feature of', 'P50', 'P95', 'P99', 'max'], fresh)}\n\n{source(result)}"
    )


def batching(result: Mapping[str, Any]) -> str:
    """What Triton's dynamic batching is worth, by queue delay."""
    rows = [
        [one["setting"], f"{one['p99_at_rest_ms']:.1f}", f"{one['throughput_at_limit']:,.0f}",
         f"{one['throughput_at_limit_times']}", f"{one['throughput']:,.0f}", f"{one['throughput_times']}"]
        for one in result["settings"]
    ]  # fmt: skip
    limit, most = result["settings"][0]["p99_limit_ms"], result["most_ms"]
    heads = ["queue delay", "P99 at rest, ms", f"requests/s, P99 <= {limit:g} ms", "times", f"P99 <= {most:g} ms"]
    return (
        f"**Triton's dynamic batching**, one shopper a request of `{result['model']}`, open loop over HTTP, the client "
        f"on the same machine (`{result['command']}`):\n\n{table([*heads, 'times'], rows)}\n\n{source(result)}"
    )


def compression(result: Mapping[str, Any]) -> str:
    """Quality, latency and size of compressed models; what the rule takes is bold."""
    parts = []
    for one in result["models"]:
        shapes = list(one["rule"])
        rows = [
            [row["form"], f"{row['bytes'] / 1024:,.0f}", f"{row['quality']:.4f}", difference(row["difference"]),
             *(_bold(f"{row['latency_ms'][n]['p50']:.3f}", one["rule"][n] == row["form"]) for n in shapes)]
            for row in one["rows"]
        ]  # fmt: skip
        head = [one["model"], "KiB", one["metric"], "difference", *(f"ms, {n} rows" for n in shapes)]
        parts.append(table(head, rows))
    return (
        f"**Compressed models**, one thread, medians; bold is what the rule takes: the quickest form that surely lost "
        f"less than {result['lose']:.0%} (`{result['command']}`):\n\n" + "\n\n".join([*parts, source(result)])
    )


def rankers(result: Mapping[str, Any]) -> str:
    """Rankers on one protocol, each with its difference from the shipped one."""
    metrics = list(result["rows"][0]["metrics"])
    rows = [
        [row["model"], *(f"{row['metrics'][m]['mean']:.4f}" for m in metrics),
         difference(row["difference"][metrics[0]]),
         "" if row["fit_seconds"] is None else f"{row['fit_seconds']:.0f}",
         "" if row["latency_ms"] is None else f"{row['latency_ms']['p50']:.2f}"]
        for row in result["rows"]
    ]  # fmt: skip
    return (
        f"**Rankers on one protocol**, {result['requests']['judge']:,} requests after all that was learned from "
        f"(`{result['command']}`); difference of {metrics[0]} from the shipped trees; one thread, 200 rows:\n\n"
        f"{table(['ranker', *metrics, 'difference', 'fit s', 'ms'], rows)}\n\n{source(result)}"
    )


def diversity(result: Mapping[str, Any]) -> str:
    """Relevance against variety by the strength of two rules; what the bench takes is bold."""
    heads = ["NDCG@20", "intra-list diversity", "categories", "KL from the liked mix", "difference of NDCG@20",
             "catalogue shown"]  # fmt: skip
    names = {"mmr": "MMR's balance", "category_mix": "mix's weight"}
    parts = []
    for rule, sweep in result["sweeps"].items():
        rows = [
            [_bold(f"{row['strength']:g}", row["strength"] == sweep["taken"]),
             *(f"{row['metrics'][m]['mean']:.4f}" for m in ("ndcg@20", "diversity")),
             f"{row['metrics']['categories']['mean']:.1f}", f"{row['metrics']['miscalibration']['mean']:.2f}",
             difference(row["difference"]), f"{row['coverage']:.1%}"]
            for row in sweep["rows"]
        ]  # fmt: skip
        parts.append(f"{table([names[rule], *heads], rows)}\n\nServing uses {result['serving'][rule]:g}.")
    return (
        f"**What variety costs**, {result['shoppers']:,} shoppers (`{result['command']}`); bold is the strongest that, "
        f"with every weaker one, surely costs less than {result['lose']:.0%}:\n\n"
        + "\n\n".join(parts) + f"\n\n{source(result)}"
    )  # fmt: skip


def gpu(result: Mapping[str, Any]) -> str:
    """Rows a second by form and rows a call, on a GPU and on the CPU beside it."""
    parts = []
    for model in result["models"]:
        sizes = list(dict.fromkeys(row["rows"] for row in model["rows"]))
        of = {(row["form"], row["rows"]): row for row in model["rows"]}
        rows = [
            [form, *(f"{of[form, n]['rows_per_s']:,} ({of[form, n]['latency_ms']['p99']:g})" for n in sizes)]
            for form in model["difference"]
        ]
        absent = "".join(f" Not measured: {name} ({why})." for name, why in model["absent"].items())
        parts.append(f"*{model['model']}*.{absent}\n\n{table(['form', *(f'{n:,}' for n in sizes)], rows)}")
    head = f"**{result['device']}** (`{result['command']}`): rows/s (P99 of a call, ms) by rows a call, host to host:"
    return "\n\n".join([head, *parts, source(result)])


def quality(result: Mapping[str, Any]) -> str:
    """Ranking quality by model, with bootstrap intervals."""
    metrics = list(result["rows"][0]["metrics"])
    rows = [[row["model"], *[_interval(row["metrics"][m]) for m in metrics]] for row in result["rows"]]
    title = f"**{result['title']}** (`{result['command']}`):"
    return f"{title}\n\n{table(['model', *metrics], rows)}\n\n{_ahead(result)}{source(result)}"


def _ahead(result: Mapping[str, Any]) -> str:
    """How far the funnel is ahead of the best of its parts, and how much of the oracle's it reaches."""
    ahead, score = result.get("funnel_minus"), {r["model"]: r["metrics"]["ndcg@10"]["mean"] for r in result["rows"]}
    if not ahead:
        return ""
    part = max(ahead, key=lambda name: score[name])
    gain = ahead[part]
    text = (
        f"The funnel is ahead of the best single stage, {part}, by {gain['mean'] / score[part]:+.1%} NDCG@10 "
        f"([{gain['low'] / score[part]:+.1%}, {gain['high'] / score[part]:+.1%}], paired by shopper)"
    )
    if "oracle" in score:
        text += f" and reaches {score['funnel'] / score['oracle']:.0%} of the planted truth's"
    return f"{text}.\n\n"


def public_sets() -> str:
    """Retrieval models on the public Amazon sets, measured as papers measure; a column of two metrics for each set."""
    paths = ((name, RESULTS / f"{file}.json") for file, name in PUBLIC_RESULTS.items())
    found = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths if path.exists()}
    if not found:
        return ""
    metrics = ("recall@10", "ndcg@10")
    shown = {name: {row["model"]: row for row in one["rows"] if row["slice"] == "all"} for name, one in found.items()}
    models = list(next(iter(shown.values())))
    measured = [(rows, metric) for rows in shown.values() for metric in metrics]
    cells = [[model, *(_interval(rows[model]["metrics"][metric]) for rows, metric in measured)] for model in models]
    told = "; ".join(
        f"{name}: {rows['popularity']['users']:,} users, {found[name]['audit']['items']['in_catalogue']:,} items, "
        f"{found[name]['seconds']:.0f} s, {found[name]['audit']['peak_memory_gib']} GiB"
        for name, rows in shown.items()
    )
    first = next(iter(found.values()))
    head = ["model", *(f"{name} {metric}" for name in shown for metric in metrics)]
    return (
        "**Public data, as papers measure**: Amazon reviews, 5-core, the whole catalogue ranked, models that never "
        f"learn the validation items (`{first['command']}`):\n\n{table(head, cells)}\n\n{told}.\n\n{source(first)}"
    )


def retrieval() -> str:
    """Retrieval models by protocol: what docs/evaluation.md shows, from every result of that kind."""
    found = (RESULTS / f"{name}.json" for name in PROTOCOL_RESULTS)
    parts = [_retrieval(json.loads(path.read_text(encoding="utf-8"))) for path in found if path.exists()]
    if public := public_sets():
        parts.insert(0, public)
    return "\n\n".join(parts) or "Nothing is measured yet."


def guardrails() -> str:
    """How often a canary is rolled back, by what is wrong with it: what docs/rollout.md shows."""
    result = json.loads((RESULTS / "guardrails.json").read_text(encoding="utf-8"))
    rows = []
    for row in result["rows"]:
        until = row["median_canary_answers_until"] if isinstance(row["harm"], dict) else None
        rows.append([_harm(row["harm"]), f"{row['rolled_back']} of {row['runs']}", f"{until:,.0f}" if until else ""])
    heads = ["what is wrong with the challenger", "rolled back", "after so many canary answers (median)"]
    return f"`{result['command']}`, {result['title']}:\n\n{table(heads, rows)}\n\n{source(result)}"


def _harm(harm: str | Mapping[str, float]) -> str:
    if isinstance(harm, str):
        return "nothing (A/A)"
    ((kind, size),) = harm.items()
    if kind == "slower":
        return f"{math.expm1(size):.0%} slower"
    if kind == "degraded":
        return f"{size:.0%} more degraded answers"
    return f"clicks and orders {abs(size):.0%} {'lower' if size < 0 else 'higher'}"


def _retrieval(result: Mapping[str, Any]) -> str:
    ks = list(dict.fromkeys(name.split("@")[1] for name in result["rows"][0]["metrics"]))
    shown = [f"{metric}@{k}" for k in ks for metric in ("recall", "ndcg")]
    parts = dict.fromkeys(row["slice"] for row in result["rows"])
    tables = []
    for part in parts:
        mine = [row for row in result["rows"] if row["slice"] == part]
        rows = [[r["model"], *(_interval(r["metrics"][m]) for m in shown), f"{r['fit_seconds']:.0f}"] for r in mine]
        tables.append(f"*{part}*, {mine[0]['users']:,} users:\n\n{table(['model', *shown, 'fit s'], rows)}")
    memory = result["audit"]["peak_memory_gib"]
    told = f"{result['seconds']:.0f} s in all of a budget of {result['budget_seconds']:g}, {memory} GiB at most."
    return "\n\n".join([f"**{result['title']}** (`{result['command']}`), {told}", *tables, source(result)])


def _times(times: Mapping[str, float]) -> list[str]:
    return [f"{times[p]:.1f}" for p in ("p50", "p95", "p99", "max")]


def _interval(value: Mapping[str, float]) -> str:
    return f"{value['mean']:.4f} [{value['low']:.4f}, {value['high']:.4f}]"


def difference(value: Mapping[str, float]) -> str:
    """A mean difference and its interval."""
    return f"{value['mean']:+.4f} [{value['low']:+.4f}, {value['high']:+.4f}]"


def _bold(text: str, taken: bool) -> str:
    return f"**{text}**" if taken else text
