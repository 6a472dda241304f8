"""A Triton backend named `onnxruntime`, in Python: serves `model.onnx` where the C++ backend of that name is absent.

Triton starts it for every model whose config.pbtxt says `backend: "onnxruntime"` when this folder lies in its backend
directory beside `python/`. All requests of one execute call become one run of the model, so that dynamic batching pays.
It does not know what the models mean; names, types and the shapes it warms up with come from the model and its config.
"""

import ctypes
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

NUMPY_TYPES = {
    "tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16,
    "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_,
}  # fmt: skip
USED = b"used_dltensor"  # lives as long as the process: a capsule keeps the address of its name only
rename_capsule = ctypes.pythonapi.PyCapsule_SetName
rename_capsule.argtypes, rename_capsule.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_int


class TritonPythonModel:
    """One instance of one version of one model."""

    def initialize(self, args):
        """Load the version's model.onnx and run it once for every size in the parameter `warmup_rows`."""
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"]) / args["model_version"]
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(parameter(config, "intra_op_thread_count", "1"))
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(
            str(folder / "model.onnx"), sess_options=options, providers=providers(args["model_instance_kind"])
        )
        self.inputs = [entry.name for entry in self.session.get_inputs()]
        self.outputs = [entry["name"] for entry in config["output"]]
        for rows in parameter(config, "warmup_rows", "1").split(","):
            self.session.run(self.outputs, {i.name: zeros(i, int(rows)) for i in self.session.get_inputs()})

    def execute(self, requests):
        """Answer every request; if the joint run fails, each runs alone so that a bad one fails alone."""
        feeds = [{name: tensor(request, name) for name in self.inputs} for request in requests]
        try:
            return self.run(feeds)
        except Exception as error:  # noqa: BLE001 whatever it is, the client must be told and the instance must live
            if len(feeds) == 1:
                return [failure(error)]
        return [self.run_alone(feed) for feed in feeds]

    def run(self, feeds):
        """One run over the rows of all feeds, split again by request."""
        joint = {name: join([feed[name] for feed in feeds]) for name in self.inputs}
        results = self.session.run(self.outputs, joint)
        if len(feeds) == 1:
            return [response(self.outputs, results)]
        cuts = np.cumsum([len(feed[self.inputs[0]]) for feed in feeds])[:-1]
        parts = zip(*(np.split(result, cuts) for result in results), strict=True)
        return [response(self.outputs, part) for part in parts]

    def run_alone(self, feed):
        try:
            return self.run([feed])[0]
        except Exception as error:  # noqa: BLE001 as above
            return failure(error)


def parameter(config, key, default):
    return config.get("parameters", {}).get(key, {}).get("string_value", default)


def providers(kind):
    """CUDA on a GPU instance if this onnxruntime has it; the CPU always."""
    wanted = ["CUDAExecutionProvider"] if kind == "GPU" else []
    return [name for name in [*wanted, "CPUExecutionProvider"] if name in ort.get_available_providers()]


def zeros(entry, rows):
    """An input of `rows` rows: the first dimension is the batch, unknown others count as 1."""
    shape = [rows, *(size if isinstance(size, int) else 1 for size in entry.shape[1:])]
    return np.zeros(shape, NUMPY_TYPES[entry.type])


def tensor(request, name):
    """An input as an array. DLPack, because Triton's stub reads NumPy 2's array descriptors wrongly (sizes of 0)."""
    return np.from_dlpack(pb_utils.get_input_tensor_by_name(request, name))


def join(arrays):
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def response(names, arrays):
    pairs = zip(names, arrays, strict=True)
    return pb_utils.InferenceResponse([output(name, np.ascontiguousarray(array)) for name, array in pairs])


def output(name, array):
    """An output. Triton marks a capsule that it took as `used_dlpack`; NumPy knows `used_dltensor` alone, and would
    print a complaint for every tensor."""
    capsule = array.__dlpack__()
    made = pb_utils.Tensor.from_dlpack(name, capsule)
    rename_capsule(capsule, USED)
    return made


def failure(error):
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"{type(error).__name__}: {error}"))
