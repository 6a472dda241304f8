"""The infrastructure parts start from wheels alone and do what the platform asks of them."""

from __future__ import annotations

import httpx
import numpy as np
import onnx
import redis
import tritonclient.grpc as grpcclient
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient, NewTopic
from onnx import TensorProto, helper

from tests.integration.conftest import Triton


def test_kafka_carries_a_keyed_message_with_its_timestamp(kafka: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=kafka)
    admin.create_topics([NewTopic("infrastructure.probe", num_partitions=2, replication_factor=1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=kafka, compression_type="lz4", acks="all", enable_idempotence=True)
    sent = producer.send("infrastructure.probe", key=b"u1", value=b"hello", timestamp_ms=1_700_000_000_000).get(10)
    producer.close()
    consumer = KafkaConsumer(
        "infrastructure.probe", bootstrap_servers=kafka, auto_offset_reset="earliest", consumer_timeout_ms=10_000
    )
    got = next(iter(consumer))
    consumer.close()
    assert (got.partition, got.offset, got.key, got.value) == (sent.partition, sent.offset, b"u1", b"hello")
    assert got.timestamp == 1_700_000_000_000


def test_redis_writes_an_append_only_file(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("infrastructure:probe", b"1")
        assert client.get("infrastructure:probe") == b"1"
        assert client.config_get("appendonly")["appendonly"] == "yes"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"


def test_mlflow_answers_and_serves_artifacts(mlflow_uri: str) -> None:
    assert httpx.get(f"{mlflow_uri}/health").text == "OK"
    made = httpx.post(f"{mlflow_uri}/api/2.0/mlflow/experiments/create", json={"name": "infrastructure"})
    assert made.status_code == 200
    put = httpx.put(f"{mlflow_uri}/api/2.0/mlflow-artifacts/artifacts/probe.txt", content=b"kept")
    assert put.status_code == 200
    assert httpx.get(f"{mlflow_uri}/api/2.0/mlflow-artifacts/artifacts/probe.txt").content == b"kept"


def test_triton_loads_an_onnx_model_on_request_and_answers(triton: Triton) -> None:
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder = triton.models / "double" / "1"
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    (folder.parent / "config.pbtxt").write_text(
        'name: "double"\nbackend: "onnxruntime"\nmax_batch_size: 8\ndynamic_batching {}\n'
        'input [{ name: "x" data_type: TYPE_FP32 dims: [3] }]\noutput [{ name: "y" data_type: TYPE_FP32 dims: [3] }]\n'
    )
    client = grpcclient.InferenceServerClient(triton.grpc)
    client.load_model("double")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    given = grpcclient.InferInput("x", [2, 3], "FP32")
    given.set_data_from_numpy(x)
    answer = client.infer("double", [given]).as_numpy("y")
    client.close()
    assert np.array_equal(answer, 2 * x)
