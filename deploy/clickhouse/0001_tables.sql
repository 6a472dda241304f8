-- What happened, one table per topic. Statements end with a semicolon at the end of a line; each may run again.
--
-- Every table is a ReplacingMergeTree whose sorting key is the identity of a row: a batch that is written twice, and an
-- event that was sent twice, is one row. Read with FINAL. `_offset` is the version: of two, the later in Kafka stays.
-- The window of identical blocks is off: what is written twice must also reach the materialised views again.

CREATE TABLE IF NOT EXISTS decisions
(
    request_id String,
    event_ms Int64 CODEC(Delta, ZSTD),
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_ms, 'UTC') CODEC(Delta, ZSTD),
    hour DateTime('UTC') DEFAULT toStartOfHour(toDateTime(intDiv(event_ms, 1000), 'UTC')),
    user_id String,
    surface LowCardinality(String),
    device LowCardinality(String),
    country LowCardinality(String),
    new_user UInt8,
    arm LowCardinality(String),
    rollout String,
    ranker_version LowCardinality(String),
    preranker_version LowCardinality(String),
    two_tower_version LowCardinality(String),
    model_versions Map(LowCardinality(String), String),
    degraded Array(LowCardinality(String)),
    cold_start LowCardinality(String),
    k UInt16,
    total_ms Float32,
    retrieve_ms Float32,
    features_ms Float32,
    prerank_ms Float32,
    rank_ms Float32,
    rerank_ms Float32,
    candidates UInt16,
    items Array(String),
    scores Array(Nullable(Float32)),
    rank_scores Array(Nullable(Float32)),
    features Array(Array(Nullable(Float32))) CODEC(ZSTD),
    feature_names_sha LowCardinality(String),
    user_features Map(LowCardinality(String), Nullable(Float32)),
    _partition Int32,
    _offset Int64,
    _arrival_ms Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(_offset)
PARTITION BY toYYYYMM(event_time)
ORDER BY (hour, request_id)
TTL toDateTime(event_time) + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS impressions
(
    event_id String,
    event_ms Int64 CODEC(Delta, ZSTD),
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_ms, 'UTC') CODEC(Delta, ZSTD),
    hour DateTime('UTC') DEFAULT toStartOfHour(toDateTime(intDiv(event_ms, 1000), 'UTC')),
    user_id String,
    session_id String,
    country LowCardinality(String),
    device LowCardinality(String),
    request_id String,
    surface LowCardinality(String),
    item_ids Array(String),
    _partition Int32,
    _offset Int64,
    _arrival_ms Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(_offset)
PARTITION BY toYYYYMM(event_time)
ORDER BY (hour, event_id)
TTL toDateTime(event_time) + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS clicks
(
    event_id String,
    event_ms Int64 CODEC(Delta, ZSTD),
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_ms, 'UTC') CODEC(Delta, ZSTD),
    hour DateTime('UTC') DEFAULT toStartOfHour(toDateTime(intDiv(event_ms, 1000), 'UTC')),
    user_id String,
    session_id String,
    country LowCardinality(String),
    device LowCardinality(String),
    request_id String,
    item_id String,
    position UInt16,
    category LowCardinality(String),
    price_cents Int64,
    _partition Int32,
    _offset Int64,
    _arrival_ms Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(_offset)
PARTITION BY toYYYYMM(event_time)
ORDER BY (hour, event_id)
TTL toDateTime(event_time) + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS carts
(
    event_id String,
    event_ms Int64 CODEC(Delta, ZSTD),
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_ms, 'UTC') CODEC(Delta, ZSTD),
    hour DateTime('UTC') DEFAULT toStartOfHour(toDateTime(intDiv(event_ms, 1000), 'UTC')),
    user_id String,
    session_id String,
    country LowCardinality(String),
    device LowCardinality(String),
    request_id String,
    item_id String,
    category LowCardinality(String),
    price_cents Int64,
    quantity UInt32,
    _partition Int32,
    _offset Int64,
    _arrival_ms Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(_offset)
PARTITION BY toYYYYMM(event_time)
ORDER BY (hour, event_id)
TTL toDateTime(event_time) + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS orders
(
    event_id String,
    line UInt16,
    event_ms Int64 CODEC(Delta, ZSTD),
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_ms, 'UTC') CODEC(Delta, ZSTD),
    hour DateTime('UTC') DEFAULT toStartOfHour(toDateTime(intDiv(event_ms, 1000), 'UTC')),
    user_id String,
    session_id String,
    country LowCardinality(String),
    device LowCardinality(String),
    order_id String,
    item_id String,
    category LowCardinality(String),
    price_cents Int64,
    quantity UInt32,
    _partition Int32,
    _offset Int64,
    _arrival_ms Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(_offset)
PARTITION BY toYYYYMM(event_time)
ORDER BY (hour, event_id, line)
TTL toDateTime(event_time) + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS payments
(
    event_id String,
    event_ms Int64 CODEC(Delta, ZSTD),
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_ms, 'UTC') CODEC(Delta, ZSTD),
    hour DateTime('UTC') DEFAULT toStartOfHour(toDateTime(intDiv(event_ms, 1000), 'UTC')),
    user_id String,
    country LowCardinality(String),
    device LowCardinality(String),
    payment_id String,
    order_id String,
    merchant_id LowCardinality(String),
    amount_cents Int64,
    currency LowCardinality(String),
    _partition Int32,
    _offset Int64,
    _arrival_ms Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(_offset)
PARTITION BY toYYYYMM(event_time)
ORDER BY (hour, event_id)
TTL toDateTime(event_time) + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS shadow
(
    request_id String,
    event_ms Int64 CODEC(Delta, ZSTD),
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_ms, 'UTC') CODEC(Delta, ZSTD),
    hour DateTime('UTC') DEFAULT toStartOfHour(toDateTime(intDiv(event_ms, 1000), 'UTC')),
    user_id String,
    rollout String,
    ranker_version LowCardinality(String),
    model_versions Map(LowCardinality(String), String),
    champion_versions Map(LowCardinality(String), String),
    k UInt16,
    items Array(String),
    scores Array(Nullable(Float32)),
    champion_items Array(String),
    total_ms Float32,
    champion_total_ms Float32,
    degraded Array(LowCardinality(String)),
    overlap_at_k Nullable(Float32),
    top1_same Nullable(UInt8),
    error String,
    payload String CODEC(ZSTD),
    _partition Int32,
    _offset Int64,
    _arrival_ms Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree(_offset)
PARTITION BY toYYYYMM(event_time)
ORDER BY (hour, request_id)
TTL toDateTime(event_time) + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS drift_reports
(
    id String,
    event_ms Int64 CODEC(Delta, ZSTD),
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_ms, 'UTC') CODEC(Delta, ZSTD),
    hour DateTime('UTC') DEFAULT toStartOfHour(toDateTime(intDiv(event_ms, 1000), 'UTC')),
    model LowCardinality(String),
    window_text LowCardinality(String),
    since_ms Int64,
    until_ms Int64,
    baseline LowCardinality(String),
    verdict LowCardinality(String),
    breakage UInt8,
    kinds Map(LowCardinality(String), String),
    reasons Array(String),
    requests UInt64,
    feature_names Array(LowCardinality(String)),
    feature_levels Array(LowCardinality(String)),
    psi Array(Nullable(Float32)),
    ks Array(Nullable(Float32)),
    wasserstein Array(Nullable(Float32)),
    js Array(Nullable(Float32)),
    null_share Array(Nullable(Float32)),
    payload String CODEC(ZSTD),
    _partition Int32,
    _offset Int64,
    _arrival_ms Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(event_time)
ORDER BY (hour, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 0;

CREATE TABLE IF NOT EXISTS rollouts
(
    id String,
    event_ms Int64 CODEC(Delta, ZSTD),
    event_time DateTime64(3, 'UTC') DEFAULT fromUnixTimestamp64Milli(event_ms, 'UTC') CODEC(Delta, ZSTD),
    hour DateTime('UTC') DEFAULT toStartOfHour(toDateTime(intDiv(event_ms, 1000), 'UTC')),
    model LowCardinality(String),
    seq Int64,
    epoch Int64,
    rollout String,
    from_state LowCardinality(String),
    to_state LowCardinality(String),
    trigger LowCardinality(String),
    reason String,
    actor LowCardinality(String),
    champion Map(LowCardinality(String), String),
    challenger Map(LowCardinality(String), String),
    previous Map(LowCardinality(String), String),
    canary_percent Float32,
    shadow UInt8,
    payload String CODEC(ZSTD),
    _partition Int32,
    _offset Int64,
    _arrival_ms Int64 CODEC(Delta, ZSTD)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(event_time)
ORDER BY (hour, _partition, _offset)
SETTINGS non_replicated_deduplication_window = 0;

-- Where reading goes on, kept beside the rows: a store that is restored or emptied asks Kafka for what it lacks.
-- Since `first_offset`, `accepted` records became rows and `dead` ones dead letters.
CREATE TABLE IF NOT EXISTS offsets
(
    topic LowCardinality(String),
    partition Int32,
    first_offset Int64,
    next_offset Int64,
    accepted UInt64,
    dead UInt64,
    committed_ms Int64
)
ENGINE = ReplacingMergeTree(committed_ms)
ORDER BY (topic, partition)
SETTINGS non_replicated_deduplication_window = 0;

-- Records that are no row of any table, each once.
CREATE TABLE IF NOT EXISTS dead_letters
(
    topic LowCardinality(String),
    partition Int32,
    offset Int64,
    reason String,
    letter String CODEC(ZSTD),
    arrival_ms Int64,
    lettered_ms Int64
)
ENGINE = ReplacingMergeTree(lettered_ms)
ORDER BY (topic, partition, offset)
SETTINGS non_replicated_deduplication_window = 0;
