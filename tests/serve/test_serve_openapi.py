"""The OpenAPI description matches the routes, its examples run, and the deployment files match the guide."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import torch
from http_client import NAMES, http_request, load_served_model, running_server, save_random_model

import cardigan
from cardigan.models.snapshot import snapshot_metadata
from cardigan.serve.access import PUBLIC_PATHS
from cardigan.serve.encodings import ENCODERS
from cardigan.serve.served_model import open_served_model

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=[(10, ()), (0, ()), (3, NAMES)], ids=["classes", "none", "names"])
def model(request, tmp_path_factory):
    classes, names = request.param
    return load_served_model(
        save_random_model(tmp_path_factory.mktemp("model") / "generator.safetensors", classes, names)
    )


def test_openapi_matches_routes_and_examples_run(model):
    with running_server(model) as (port, service):
        description = json.loads(http_request(port, method="GET", path="/openapi.json")[2])
        assert description["openapi"].startswith("3.1")
        for path, methods in description["paths"].items():
            ((method, operation),) = methods.items()
            status, headers, content = http_request(port, method=method.upper(), path=path, accept="application/json")
            assert status == 200
            assert headers["content-type"].split(";")[0] in operation["responses"]["200"]["content"]
            assert (operation.get("security") == []) == (path in PUBLIC_PATHS)
        operation = description["paths"]["/v1/images"]["post"]
        media_types = list(operation["responses"]["200"]["content"])
        assert media_types == sorted(ENCODERS, key=media_types.index)
        request = operation["requestBody"]["content"]["application/json"]
        jsonschema.Draft202012Validator.check_schema(request["schema"])
        response_schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        for example in request["examples"].values():
            jsonschema.validate(example["value"], request["schema"])
            status, _, content = http_request(port, example["value"])
            assert status == 200, content
            jsonschema.validate(json.loads(content), response_schema)
        latents = {"latents": [[0.0] * 100], **({"labels": 0} if model.spec.num_classes else {})}
        both = [{"seed": 0, "seeds": [1]}, {"seed": 0, **latents}, {"seeds": [1], **latents}]
        both += [{"latents": latents["latents"]}] if model.spec.num_classes else []
        for wrong in ({"n": 0}, {"n": 257}, {"seed": -1}, {"x": 1}, {"truncation": 2}, *both):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(wrong, request["schema"])
            status = http_request(port, wrong)[0]
            assert str(status) in operation["responses"]
        assert {route.path for route in app_routes(service)} == set(description["paths"])


def app_routes(service):
    from cardigan.http.endpoint import Endpoint
    from cardigan.serve.app import build_app

    return build_app(service, Endpoint("127.0.0.1", 1)).routes


def test_model_endpoint(model):
    with running_server(model) as (port, _):
        info = json.loads(http_request(port, method="GET", path="/v1/model")[2])
    assert (info["height"], info["width"], info["channels"], info["classes"]) == (32, 32, 1, model.spec.num_classes)
    assert info["class_names"] == list(model.spec.class_names)
    assert (info["images_seen"], len(info["sha256"]), info["limits"]["max_images"]) == (64, 64, 256)
    assert info["config"]["generator.width"] == 8


def test_onnx_serving_gives_equal_images(tmp_path):
    pytest.importorskip("onnxruntime")
    path = save_random_model(tmp_path / "generator.safetensors")
    export_onnx(cardigan.load(path).snapshot, tmp_path / "model.onnx")
    model = open_served_model(tmp_path / "model.onnx", "onnx", "auto", 64)
    with running_server(model) as (port, _):
        import io

        import numpy as np

        body = {"seeds": [1, 2, 3], "labels": [3, 4, 5], "truncation": 0.5}
        found = np.load(io.BytesIO(http_request(port, body, "application/x-npz")[2]))["images"]
        alone = np.load(
            io.BytesIO(http_request(port, {"seeds": [2], "labels": 4, "truncation": 0.5}, "application/x-npz")[2])
        )["images"]
        info = json.loads(http_request(port, method="GET", path="/v1/model")[2])
    expected = cardigan.load(path).sample_seeds([1, 2, 3], labels=[3, 4, 5], truncation=0.5)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.array_equal(alone[0], found[1])
    assert (info["backend"], info["classes"]) == ("onnx", 10)


def export_onnx(snapshot, path):
    """Write the generator like `cardigan export --format onnx`: inputs z, labels, truncation; Cardigan's metadata."""
    import warnings

    import onnx

    class Graph(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.generator = snapshot.generator

        def forward(self, z, labels, truncation):
            return self.generator(z * truncation, labels)

    size, batch = snapshot.config.latent.size, torch.export.Dim("N")
    inputs = (torch.randn(3, size), torch.arange(3), torch.tensor(1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Graph().eval(), inputs, input_names=["z", "labels", "truncation"], output_names=["images"], dynamo=True,
            verbose=False, dynamic_shapes=({0: batch}, {0: batch}, None),
        )  # fmt: skip
    proto = program.model_proto
    proto.metadata_props.add(
        key="cardigan", value=json.dumps(snapshot_metadata(snapshot.config, snapshot.spec, snapshot.images_seen))
    )
    onnx.save(proto, path)


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\x80\x04}", b"PK\x03\x04"])
def test_invalid_onnx_raises(tmp_path, content):
    pytest.importorskip("onnxruntime")
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(cardigan.CardiganError, match="onnxruntime cannot load"):
        open_served_model(tmp_path / "model.onnx", "onnx", "auto", 64)


@pytest.mark.parametrize(("axes", "facts", "sentence"), [
    (["N"], '{"config": {}, "num_classes": 0, "images_seen": 1}', "does not match its metadata"),
    (["N", 64], "[" * 100_000, "has no Cardigan metadata"),
], ids=["one axis", "deep"])  # fmt: skip
def test_foreign_onnx_raises(tmp_path, axes, facts, sentence):
    pytest.importorskip("onnxruntime")
    import onnx

    z, images = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, axes) for name in ("z", "images"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["z"], ["images"])], "graph", [z], [images])
    proto = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    proto.metadata_props.add(key="cardigan", value=facts)
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(cardigan.CardiganError, match=sentence):
        open_served_model(tmp_path / "model.onnx", "onnx", "auto", 64)


BOMB = """
import resource, sys
import onnx
from onnx import TensorProto, helper
from pathlib import Path
from cardigan.errors import CardiganError
from cardigan.serve import onnx_backend
onnx_backend.MAX_BYTES = 1 << 28
value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
nodes = [
    helper.make_node("ConstantOfShape", ["shape"], ["big"], value=value),
    helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
    helper.make_node("ReduceSum", ["z"], ["latents"], keepdims=0),
    helper.make_node("Mul", ["sum", "latents"], ["pixel"]),
    helper.make_node("Shape", ["z"], ["count"], start=0, end=1),
    helper.make_node("Concat", ["count", "size"], ["images_shape"], axis=0),
    helper.make_node("Expand", ["pixel", "images_shape"], ["images"]),
]
constants = [
    helper.make_tensor("shape", TensorProto.INT64, [1], [int(sys.argv[2])]),
    helper.make_tensor("size", TensorProto.INT64, [3], [1, 32, 32]),
]
z = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 64])
images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["N", 1, 32, 32])
graph = helper.make_graph(nodes, "graph", [z], [images], constants)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
model.metadata_props.add(key="cardigan", value='{"config": {}, "num_classes": 0, "images_seen": 1}')
onnx.save(model, sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    onnx_backend.open_onnx(Path(sys.argv[1]))
    print("opened")
except CardiganError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000)
"""


@pytest.mark.parametrize(("count", "sentence"), [(250_000_000, "cannot generate an image with"), (1000, "opened")])
def test_onnx_that_asks_for_memory_is_refused(tmp_path, count, sentence):
    pytest.importorskip("onnxruntime")
    words = [sys.executable, "-c", BOMB, str(tmp_path / "model.onnx"), str(count)]
    process = subprocess.run(words, capture_output=True, text=True, timeout=120)  # noqa: PLW1510
    assert process.returncode == 0, process.stderr
    message, megabytes = process.stdout.splitlines()
    assert sentence in message and int(megabytes) < 400  # a constant of 1,000 MB is not allocated


def test_deployment_files_match_guide():
    yaml = pytest.importorskip("yaml")
    service = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["cardigan"]
    assert service["read_only"] is True
    assert all(volume.endswith(":ro") for volume in service["volumes"])
    assert "CARDIGAN_TOKEN" in service["environment"]
    image = (ROOT / "Dockerfile").read_text()
    assert "USER cardigan" in image
    assert "HEALTHCHECK" in image
    assert "download.pytorch.org/whl/cpu" in image
    for line in (ROOT / "docs" / "guides" / "serve.md").read_text().splitlines():
        assert "TODO" not in line
