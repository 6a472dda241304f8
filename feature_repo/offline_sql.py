"""The plan as DuckDB SQL: the same windows, point in time, over the event lake. Pure: builds text, runs nothing.

An event counts in a window at time t exactly while  enter <= t < leave,  where for tiles of length g and a window W
    enter = max(arrival, tile start)          it has arrived and its tile is open
    leave = tile start + g + W                its tile has fallen out at the far end (never before it entered)
So sums are differences of two running sums, each looked up with one ASOF join, and a distinct count is the same over
the merged intervals of each value. What cannot be subtracted again (extremes, decayed sums, most frequent values) joins
each request with the rows of its window. Strictly before t (for training rows made from events): arrival and event
time are below t.

Every statement reads the table `requests(rid, code, moment)` and the tables `facts_<feed>` made by `facts`, and yields
its values in order of rid.
"""

from __future__ import annotations

from collections.abc import Iterable

from feature_repo.facts import on_element
from feature_repo.layout import Feed, Layout
from feature_repo.plan import ELEMENT_NAME, ViewPlan
from feature_repo.windows import CLOCK_AHEAD_MS, DEDUP_HOURS, HOUR_MS, TOO_LATE_MS, Window


def facts(view: ViewPlan, feed: Feed, source: str) -> str:
    """Rows of a feed: code, event_time, arrival, v0... from `source` (a relation of the topic's columns), joined with
    `codes(join keys..., code)`; without duplicates and without what the late rule refuses."""
    names = {name for fields in feed.values for name in fields} | set(view.join_keys)
    flat = sorted({n for n in names if not on_element(feed, n)} | ({feed.each} if feed.each else set()))
    values = ", ".join(f"{' * '.join(_field(feed, n) for n in fields)} AS v{i}" for i, fields in enumerate(feed.values))
    keys = " AND ".join(f"codes.{k} = {_field(feed, k)}" for k in view.join_keys)
    unnest = f", UNNEST(e.{feed.each}) AS u(element)" if feed.each else ""
    return f"""
        WITH seen AS (
            SELECT event_time, _arrival, {', '.join(flat)},
                   lag(_arrival) OVER (PARTITION BY event_id ORDER BY _partition, _offset, _arrival) AS before
            FROM {source} WHERE event_time BETWEEN _arrival - {TOO_LATE_MS} AND _arrival + {CLOCK_AHEAD_MS}),
        e AS (
            SELECT * EXCLUDE (before) FROM seen
            WHERE before IS NULL OR _arrival // {HOUR_MS} - before // {HOUR_MS} > {DEDUP_HOURS})
        SELECT codes.code, e.event_time, e._arrival AS arrival{', ' + values if values else ''}
        FROM e{unnest} JOIN codes ON {keys}"""  # noqa: S608 - names come from the checked plan


def needed_columns(view: ViewPlan, feed: Feed) -> list[str]:
    """The columns of the topic that `facts` reads."""
    names = {name for fields in feed.values for name in fields} | set(view.join_keys)
    return sorted({n for n in names if not on_element(feed, n)} | ({feed.each} - {""})
                  | {"event_id", "event_time", "_arrival", "_partition", "_offset"})


def sums(table: str, window: Window, values: Iterable[str], strictly_before: bool) -> str:
    """Per request the sum of each value expression (NULL counts 0) over the window, as w0, w1, ..."""
    exprs = list(values)
    minus = ", ".join(f"coalesce(i.c{n}, 0) - coalesce(o.c{n}, 0) AS w{n}" for n in range(len(exprs)))
    added = ", ".join(f"sum(coalesce({e}, 0))::DOUBLE AS x{i}" for i, e in enumerate(exprs))
    return _running(table, window, added, len(exprs), minus, strictly_before)


def squares(table: str, window: Window, value: str, strictly_before: bool) -> str:
    """Per request the sum of squares of a value over the window, exact: h0 * 2^62 + w0."""
    added = f"sum(coalesce({value}::HUGEINT * {value}::HUGEINT, 0))::HUGEINT AS x0"
    found = "(coalesce(i.c0, 0) - coalesce(o.c0, 0))"
    parts = f"({found} % {2**62})::BIGINT AS w0, ({found} // {2**62})::BIGINT AS h0"
    return _running(table, window, added, 1, parts, strictly_before)


def _running(table: str, window: Window, added: str, n: int, minus: str, strictly_before: bool) -> str:
    """`minus` of the running sums c0, c1, ... of what had arrived (i) and had left (o) by each request."""
    enter, leave = _enter(window, strictly_before), _leave(window, strictly_before)
    running = ", ".join(f"sum(x{i}) OVER (PARTITION BY code ORDER BY moment) AS c{i}" for i in range(n))
    return f"""
        WITH arrived AS (SELECT code, moment, {running} FROM
                         (SELECT code, {enter} AS moment, {added} FROM {table} GROUP BY ALL)),
        left_again AS (SELECT code, moment, {running} FROM
                       (SELECT code, {leave} AS moment, {added} FROM {table} GROUP BY ALL))
        SELECT {minus} FROM requests r
        ASOF LEFT JOIN arrived i ON r.code = i.code AND r.moment >= i.moment
        ASOF LEFT JOIN left_again o ON r.code = o.code AND r.moment >= o.moment
        ORDER BY r.rid"""  # noqa: S608


def distinct(table: str, window: Window, value: str, strictly_before: bool) -> str:
    """Per request the number of distinct values over the window, as w0: intervals of one value are merged first.

    Equal intervals are made one before, or their order would differ between the two passes over them.
    """
    enter, leave = _enter(window, strictly_before), _leave(window, strictly_before)
    return f"""
        WITH spans AS (SELECT DISTINCT code, {value} AS value, {enter} AS enter, {leave} AS leave
                       FROM {table} WHERE {value} IS NOT NULL),
        marked AS (SELECT *, enter > coalesce(max(leave) OVER (PARTITION BY code, value ORDER BY enter, leave
                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), -1) AS fresh FROM spans),
        islands AS (SELECT *, sum(fresh::INT) OVER (PARTITION BY code, value ORDER BY enter, leave
                        ROWS UNBOUNDED PRECEDING) AS island FROM marked),
        merged AS (SELECT code, min(enter) AS enter, max(leave) AS leave FROM islands GROUP BY code, value, island),
        steps AS (SELECT code, moment, sum(step) AS step FROM (
                        SELECT code, enter AS moment, 1 AS step FROM merged
                        UNION ALL SELECT code, leave, -1 FROM merged) GROUP BY ALL),
        running AS (SELECT code, moment, sum(step) OVER (PARTITION BY code ORDER BY moment) AS held FROM steps)
        SELECT coalesce(h.held, 0)::DOUBLE AS w0 FROM requests r
        ASOF LEFT JOIN running h ON r.code = h.code AND r.moment >= h.moment ORDER BY r.rid"""  # noqa: S608


def extremes(table: str, window: Window, picks: Iterable[tuple[str, str]], strictly_before: bool) -> str:
    """Per request min or max of value expressions over the window, as w0, w1, ...; NaN where there is none."""
    enter, leave = _enter(window, strictly_before), _leave(window, strictly_before)
    chosen = ", ".join(f"{function}(f.{value}) AS w{i}" for i, (function, value) in enumerate(picks))
    outer = ", ".join(f"coalesce(m.w{i}, 'nan'::DOUBLE)::DOUBLE AS w{i}" for i, _ in enumerate(picks))
    return f"""
        WITH f AS (SELECT *, {enter} AS enter, {leave} AS leave FROM {table}),
        m AS (SELECT r.rid, {chosen} FROM requests r
              JOIN f ON r.code = f.code AND r.moment >= f.enter AND r.moment < f.leave GROUP BY r.rid)
        SELECT {outer} FROM requests r LEFT JOIN m ON r.rid = m.rid ORDER BY r.rid"""  # noqa: S608


def decayed(table: str, window: Window, value: str, half_life_ms: int, strictly_before: bool) -> str:
    """Per request the decayed sum of a value expression (NULL counts 0) over the window, as w0."""
    tiles = f"(r.moment // {window.tile_ms} - f.event_time // {window.tile_ms})"
    weight = f"pow(2.0, -{tiles} * {window.tile_ms / half_life_ms!r}::DOUBLE)"
    return f"""
        WITH f AS (SELECT *, {_enter(window, strictly_before)} AS enter, {_leave(window, strictly_before)} AS leave
                   FROM {table}),
        m AS (SELECT r.rid, sum(coalesce({value}, 0)::DOUBLE * {weight}) AS w0 FROM requests r
              JOIN f ON r.code = f.code AND r.moment >= f.enter AND r.moment < f.leave GROUP BY r.rid)
        SELECT coalesce(m.w0, 0)::DOUBLE AS w0 FROM requests r LEFT JOIN m ON r.rid = m.rid ORDER BY r.rid"""  # noqa: S608


def top(table: str, window: Window, value: str, k: int, strictly_before: bool) -> str:
    """(rid, value) of the at most k most frequent values over each request's window, most frequent first."""
    return f"""
        WITH f AS (SELECT code, {value} AS value, {_enter(window, strictly_before)} AS enter,
                          {_leave(window, strictly_before)} AS leave FROM {table} WHERE {value} IS NOT NULL),
        counted AS (SELECT r.rid, f.value, count(*) AS n FROM requests r
                    JOIN f ON r.code = f.code AND r.moment >= f.enter AND r.moment < f.leave GROUP BY r.rid, f.value)
        SELECT rid, value FROM counted
        QUALIFY row_number() OVER (PARTITION BY rid ORDER BY n DESC, value) <= {k}
        ORDER BY rid, n DESC, value"""  # noqa: S608


def newest(table: str, value: str, strictly_before: bool) -> str:
    """(code, when it became known, event_time, value) of every value, in order of key and of becoming known."""
    known = "greatest(arrival, event_time) + 1" if strictly_before else "arrival"
    return (f"SELECT code, {known} AS known, event_time, {value} AS value FROM {table} "  # noqa: S608
            f"WHERE {value} IS NOT NULL ORDER BY code, known")


def feeds_of(layout: Layout, column: str) -> dict[int, str]:
    """Index of each feed of a column -> the value column of its facts; empty if rows are counted."""
    found = {}
    for source in layout.view.column(column).sources:
        at = layout.view.feeds.index((source.topic, source.each))
        found[at] = f"v{layout.feeds[at].values.index(source.fields)}" if source.fields else ""
    return found


def relation(layout: Layout, column: str) -> tuple[str, str]:
    """(relation of facts, value column; empty if rows are counted) of a column."""
    feeds = feeds_of(layout, column)
    if len(feeds) == 1:
        ((at, value),) = feeds.items()
        return f"facts_{at}", value
    parts = [f"SELECT code, event_time, arrival, {value or 1} AS value FROM facts_{at}"  # noqa: S608
             for at, value in feeds.items()]
    return f"({' UNION ALL '.join(parts)})", "value" if all(feeds.values()) else ""


def _enter(window: Window, strictly_before: bool) -> str:
    if strictly_before:
        return "greatest(arrival, event_time) + 1"
    return f"greatest(arrival, event_time // {window.tile_ms} * {window.tile_ms})"


def _leave(window: Window, strictly_before: bool) -> str:
    leaves = f"(event_time // {window.tile_ms} + 1) * {window.tile_ms} + {window.length_ms}"
    return f"greatest({leaves}, {_enter(window, strictly_before)})"


def _field(feed: Feed, name: str) -> str:
    if not on_element(feed, name):
        return f"e.{name}"
    return "u.element" if ELEMENT_NAME.get(feed.each) == name else f"u.element.{name}"


