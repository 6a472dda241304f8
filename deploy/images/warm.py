"""Import what the programs of an image import: its bytecode is written, and a cut that went too deep shows at once.

Bytecode of what is never imported would be a tenth of the image. Runs while it is built: `warm.py serving | pipelines`.
"""

import importlib
import sys

MODULES = (
    "crc32c", "faiss", "fastapi", "fastapi.middleware", "fastapi.staticfiles", "fastapi.templating",
    "grpc.aio", "httptools", "httpx", "jinja2.ext", "kafka", "kafka.admin", "lightgbm", "lz4.frame", "mmh3",
    "msgspec", "numpy", "onnxruntime", "orjson", "prometheus_client", "pyarrow.compute", "pyarrow.dataset",
    "pyarrow.parquet", "pydantic_settings", "python_multipart", "redis.asyncio", "rich.console", "structlog",
    "tritonclient.grpc.aio", "uvicorn.lifespan.on", "uvicorn.loops.auto", "uvicorn.protocols.http.auto",
    "uvicorn.protocols.http.httptools_impl", "uvloop",
)  # fmt: skip
PIPELINES = (
    "duckdb", "evidently", "feast", "matplotlib.pyplot", "mlflow.tracking", "onnx", "onnxmltools",
    "onnxscript", "pandas", "polars", "psutil", "river.drift", "scipy.sparse.linalg", "sklearn.linear_model",
    "supervisor.options", "torch", "torch.onnx", "typer",
)  # fmt: skip


def main(role):
    for name in (*MODULES, *(PIPELINES if role == "pipelines" else ())):
        importlib.import_module(name)
    import faiss
    import numpy as np
    import pyarrow.compute as pc

    index = faiss.IndexFlatIP(2)
    index.add(np.eye(2, dtype=np.float32))
    assert index.search(np.eye(2, dtype=np.float32), 1)[1].tolist() == [[0], [1]]
    assert pc.sum([1, 2]).as_py() == 3


if __name__ == "__main__":
    main(sys.argv[1])
