"""Triton's model repository: versions put in place by rename, and loaded by explicit control."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from adapters.bundles import Bundle, load_bundle, require_passed
from adapters.errors import Unavailable

KEPT_VERSIONS = 2


def put_version(
    repository: Path, model: str, config: Path, bundle: Bundle, file: str, *, keep: Collection[str] = (),
    bypass: bool = False,
) -> None:  # fmt: skip
    """Place `<repository>/<model>/{config.pbtxt, configs/, <version>/model.onnx}` from a verified bundle.

    The newest KEPT_VERSIONS versions and those in `keep` stay, the others go. Raises Corrupt if the bundle is damaged
    or its gate was not passed: Triton serves whatever lies there.
    """
    require_passed(load_bundle(bundle.folder, expected_sha256=bundle.manifest_sha256), bypass=bypass)
    folder, version = repository / model, str(int(bundle.version))
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / version).exists():
        staging = Path(tempfile.mkdtemp(prefix=".staging-", dir=repository))
        shutil.copyfile(bundle.path(file), staging / "model.onnx")
        staging.chmod(0o755)
        staging.rename(folder / version)
    staged = repository / f".{model}.pbtxt"
    shutil.copyfile(config, staged)
    staged.replace(folder / "config.pbtxt")
    for other in sorted((config.parent / "configs").glob("*.pbtxt")):  # Triton takes one that it is told by name
        (folder / "configs").mkdir(exist_ok=True)
        shutil.copyfile(other, staged)
        staged.replace(folder / "configs" / other.name)
    versions = sorted((int(p.name) for p in folder.iterdir() if p.name.isdigit()), reverse=True)
    for old in versions[KEPT_VERSIONS:]:
        if str(old) not in keep:
            shutil.rmtree(folder / str(old))


def load(address: str, model: str, *, timeout_s: float = 20.0) -> None:
    """Ask the Triton at `host:port` to load what lies in its repository. Raises Unavailable if it does not."""
    try:
        with triton.InferenceServerClient(address) as client:
            if not client.is_server_live(client_timeout=1.0):
                raise Unavailable(f"Triton at {address} is not live")
            client.load_model(model, client_timeout=timeout_s)
    except InferenceServerException as error:
        raise Unavailable(f"Triton at {address} did not load {model}: {error.message()}") from None
