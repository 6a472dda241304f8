-- What the hourly statistics are made from and kept in.
--
-- The materialised views below hold facts that may be written twice without harm (they replace themselves). Sums are
-- never kept by a materialised view: a batch that is written again after a crash would be added again. Instead the
-- views mark the hours that were touched, and each marked hour is computed anew from its rows.

-- Which decision a request got, to be looked up by its id.
CREATE TABLE IF NOT EXISTS decision_arms
(
    request_id String,
    arm LowCardinality(String),
    rollout String,
    ranker_version LowCardinality(String),
    surface LowCardinality(String),
    device LowCardinality(String),
    event_ms Int64,
    _offset Int64
)
ENGINE = ReplacingMergeTree(_offset)
ORDER BY request_id
TTL toDateTime(intDiv(event_ms, 1000)) + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS decision_arms_view TO decision_arms AS
SELECT request_id, arm, rollout, ranker_version, surface, device, event_ms, _offset FROM decisions;

-- Clicks in a feed by shopper and item: an order is credited to the last of them.
CREATE TABLE IF NOT EXISTS feed_clicks
(
    user_id String,
    item_id String,
    event_ms Int64,
    request_id String,
    event_id String
)
ENGINE = ReplacingMergeTree
ORDER BY (user_id, item_id, event_ms, event_id)
TTL toDateTime(intDiv(event_ms, 1000)) + INTERVAL 8 DAY
SETTINGS non_replicated_deduplication_window = 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS feed_clicks_view TO feed_clicks AS
SELECT user_id, item_id, event_ms, request_id, event_id FROM clicks WHERE request_id != '';

-- Hours that must be computed again.
CREATE TABLE IF NOT EXISTS hour_marks
(
    hour DateTime('UTC'),
    marked_ms Int64
)
ENGINE = ReplacingMergeTree(marked_ms)
ORDER BY hour
SETTINGS non_replicated_deduplication_window = 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS hour_marks_decisions TO hour_marks AS
SELECT DISTINCT hour, toUnixTimestamp64Milli(now64(3)) AS marked_ms FROM decisions;

CREATE MATERIALIZED VIEW IF NOT EXISTS hour_marks_impressions TO hour_marks AS
SELECT DISTINCT hour, toUnixTimestamp64Milli(now64(3)) AS marked_ms FROM impressions;

CREATE MATERIALIZED VIEW IF NOT EXISTS hour_marks_clicks TO hour_marks AS
SELECT DISTINCT hour, toUnixTimestamp64Milli(now64(3)) AS marked_ms FROM clicks;

CREATE MATERIALIZED VIEW IF NOT EXISTS hour_marks_carts TO hour_marks AS
SELECT DISTINCT hour, toUnixTimestamp64Milli(now64(3)) AS marked_ms FROM carts;

CREATE MATERIALIZED VIEW IF NOT EXISTS hour_marks_orders TO hour_marks AS
SELECT DISTINCT hour, toUnixTimestamp64Milli(now64(3)) AS marked_ms FROM orders;

-- One row per hour and group; all rows of an hour are written at once with one `computed_ms`, and the newest count.
-- `arm` is empty for outcomes without a decision; `unmatched` are those that name a request nobody has heard of yet.
CREATE TABLE IF NOT EXISTS hourly
(
    hour DateTime('UTC'),
    arm LowCardinality(String),
    rollout String,
    ranker_version LowCardinality(String),
    surface LowCardinality(String),
    device LowCardinality(String),
    requests UInt64,
    degraded_requests UInt64,
    impressions UInt64,
    shown UInt64,
    clicks UInt64,
    carts UInt64,
    orders UInt64,
    revenue_cents Int64,
    unmatched UInt64,
    latency AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float32),
    computed_ms Int64
)
ENGINE = ReplacingMergeTree(computed_ms)
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, arm, rollout, ranker_version, surface, device)
SETTINGS non_replicated_deduplication_window = 0;
