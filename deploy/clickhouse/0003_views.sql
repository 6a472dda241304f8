-- Views to read from.

CREATE OR REPLACE VIEW hourly_stats AS
SELECT
    hour, arm, rollout, ranker_version, surface, device,
    requests, degraded_requests, impressions, shown, clicks, carts, orders, revenue_cents, unmatched,
    if(requests = 0 OR shown = 0, NULL, clicks / shown) AS ctr,
    if(requests = 0 OR impressions = 0, NULL, clicks / impressions) AS click_rate,
    if(requests = 0, NULL, finalizeAggregation(latency)[1]) AS latency_p50,
    if(requests = 0, NULL, finalizeAggregation(latency)[2]) AS latency_p95,
    if(requests = 0, NULL, finalizeAggregation(latency)[3]) AS latency_p99,
    if(requests = 0, NULL, degraded_requests / requests) AS degraded_share,
    computed_ms
FROM hourly FINAL
WHERE (hour, computed_ms) IN (SELECT hour, max(computed_ms) FROM hourly GROUP BY hour);

CREATE OR REPLACE VIEW impression_items AS
SELECT event_id, event_ms, event_time, hour, user_id, country, device, request_id, surface, item_id, position
FROM (SELECT * FROM impressions FINAL)
ARRAY JOIN item_ids AS item_id, arrayEnumerate(item_ids) AS position;

CREATE OR REPLACE VIEW drift_features AS
SELECT event_ms AS at_ms, event_time, model, window_text, baseline, verdict, feature, level, psi_ AS psi, ks_ AS ks,
    wasserstein_ AS wasserstein, js_ AS js, null_share_ AS null_share
FROM (SELECT * FROM drift_reports FINAL)
ARRAY JOIN feature_names AS feature, feature_levels AS level, psi AS psi_, ks AS ks_, wasserstein AS wasserstein_,
    js AS js_, null_share AS null_share_;

-- Decisions of [since_ms, until_ms) with what came of them: SELECT ... FROM outcomes(since_ms = 1, until_ms = 2).
-- An order line counts if the shopper clicked the item in this feed at most 24 hours before, and clicked it in no
-- later feed in between.
CREATE OR REPLACE VIEW outcomes AS
WITH
    wanted AS
    (
        SELECT request_id FROM decisions
        WHERE event_ms >= {since_ms:Int64} AND event_ms < {until_ms:Int64}
            AND hour >= toStartOfHour(toDateTime(intDiv({since_ms:Int64}, 1000), 'UTC'))
            AND hour <= toDateTime(intDiv({until_ms:Int64}, 1000), 'UTC')
    )
SELECT
    d.request_id AS request_id, d.event_ms AS event_ms, d.hour AS hour, d.user_id AS user_id, d.arm AS arm,
    d.rollout AS rollout, d.ranker_version AS ranker_version, d.surface AS surface, d.device AS device,
    d.country AS country, d.cold_start AS cold_start, d.total_ms AS total_ms, d.degraded AS degraded, d.items AS items,
    i.impressions AS impressions, i.shown AS shown, c.clicks AS clicks, c.clicked AS clicked, a.carts AS carts,
    o.orders AS orders, o.ordered AS ordered, o.revenue_cents AS revenue_cents
FROM
(
    SELECT * FROM decisions FINAL
    WHERE event_ms >= {since_ms:Int64} AND event_ms < {until_ms:Int64}
        AND hour >= toStartOfHour(toDateTime(intDiv({since_ms:Int64}, 1000), 'UTC'))
        AND hour <= toDateTime(intDiv({until_ms:Int64}, 1000), 'UTC')
) AS d
LEFT JOIN
(
    SELECT request_id, toUInt8(1) AS impressions, max(length(item_ids)) AS shown
    FROM impressions FINAL
    WHERE hour >= toStartOfHour(toDateTime(intDiv({since_ms:Int64}, 1000), 'UTC')) AND request_id IN wanted
    GROUP BY request_id
) AS i ON i.request_id = d.request_id
LEFT JOIN
(
    SELECT request_id, uniqExact(item_id) AS clicks, groupUniqArray(item_id) AS clicked
    FROM clicks FINAL
    WHERE hour >= toStartOfHour(toDateTime(intDiv({since_ms:Int64}, 1000), 'UTC')) AND request_id IN wanted
    GROUP BY request_id
) AS c ON c.request_id = d.request_id
LEFT JOIN
(
    SELECT request_id, count() AS carts
    FROM carts FINAL
    WHERE hour >= toStartOfHour(toDateTime(intDiv({since_ms:Int64}, 1000), 'UTC')) AND request_id IN wanted
    GROUP BY request_id
) AS a ON a.request_id = d.request_id
LEFT JOIN
(
    SELECT request_id, count() AS orders, groupUniqArray(item_id) AS ordered, sum(revenue) AS revenue_cents
    FROM
    (
        SELECT argMax(f.request_id, f.event_ms) AS request_id, any(l.item_id) AS item_id,
            any(l.price_cents * l.quantity) AS revenue
        FROM
        (
            SELECT event_id, line, user_id, item_id, event_ms, price_cents, quantity FROM orders FINAL
            WHERE hour >= toStartOfHour(toDateTime(intDiv({since_ms:Int64}, 1000), 'UTC'))
        ) AS l
        INNER JOIN
        (
            SELECT user_id, item_id, event_ms, request_id FROM feed_clicks
            WHERE user_id IN (SELECT user_id FROM feed_clicks WHERE request_id IN wanted)
        ) AS f ON f.user_id = l.user_id AND f.item_id = l.item_id
        WHERE f.event_ms <= l.event_ms AND f.event_ms > l.event_ms - 86400000
        GROUP BY l.event_id, l.line
    )
    WHERE request_id IN wanted
    GROUP BY request_id
) AS o ON o.request_id = d.request_id;
