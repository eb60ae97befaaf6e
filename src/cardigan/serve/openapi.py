"""OpenAPI 3.1 description of the server. A test compares it with the routes and runs its examples."""

from itertools import combinations
from typing import Any

from cardigan.latents.seeds import SEED_LIMIT
from cardigan.serve.sample_request import MAX_LATENT
from cardigan.serve.served_model import ServedModel

ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string"}},
    "examples": [{"error": "n is 0: expected 1.."}],
}
BINARY_CONTENT = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
ERROR_DESCRIPTIONS = {
    "400": "Invalid request. The message says what was given and what was expected.",
    "401": "The token is missing or wrong (only for a server that requires a token).",
    "403": "The Host or Origin header is not allowed (only for a server without a token).",
    "406": "No media type in Accept is available.",
    "408": "The request did not arrive in time.",
    "413": "Too many images or bytes in one request.",
    "429": "The queue is full. Retry-After gives the seconds to wait.",
    "500": "Internal server error.",
    "503": "The server is stopping.",
    "504": "The images were not generated in time.",
}


def openapi_schema(model: ServedModel, max_images: int) -> dict[str, Any]:
    """Return the OpenAPI document as plain JSON values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Images of {model.name}",
            "version": "1",
            "summary": "Generates images with a Cardigan model. The same seed gives the same image under any load.",
        },
        "paths": {
            "/v1/images": {"post": _images_operation(model, max_images)},
            "/v1/model": {
                "get": _get_operation(
                    "Model metadata: image size, classes, latents, settings, hash and limits.",
                    "application/json",
                    {"type": "object"},
                )
            },
            "/healthz": {
                "get": {
                    **_get_operation(
                        "Server health.", "application/json", {"type": "object"}, {"503": "Stopping or stalled."}
                    ),
                    "security": [],
                }
            },
            "/metrics": {"get": _get_operation("Prometheus metrics.", "text/plain", {"type": "string"})},
            "/openapi.json": {"get": _get_operation("This description.", "application/json", {"type": "object"})},
            "/": {"get": {**_get_operation("Demo page.", "text/html", {"type": "string"}), "security": []}},
        },
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": ERROR_SCHEMA},
        },
        "security": [{}, {"token": []}],
    }


def _images_operation(model: ServedModel, max_images: int) -> dict[str, Any]:
    examples = _examples(model)
    return {
        "summary": "Generate images.",
        "operationId": "generateImages",
        "requestBody": {
            "required": False,
            "description": "Default: one image with a random seed.",
            "content": {
                "application/json": {
                    "schema": _request_schema(model, max_images),
                    "examples": {name: {"value": value} for name, value in examples.items()},
                }
            },
        },
        "responses": {
            "200": {
                "description": "The images, in the media type of Accept. Default: a PNG of one image or a grid of all.",
                "headers": {
                    "Cardigan-Seed": {"description": "The common seed of all images.", "schema": {"type": "integer"}},
                    "Cardigan-Seeds": {
                        "description": "The seed of each image. Omitted for more than 64 images.",
                        "schema": {"type": "string"},
                    },
                    "Cardigan-Labels": {
                        "description": "The class of each image. Omitted for more than 64 images.",
                        "schema": {"type": "string"},
                    },
                },
                "content": {
                    "image/png": BINARY_CONTENT,
                    "image/webp": BINARY_CONTENT,
                    "application/json": {"schema": _response_schema()},
                    "application/x-npz": BINARY_CONTENT,
                    "application/zip": BINARY_CONTENT,
                },
            },
            **{status: _error_response(error_description) for status, error_description in ERROR_DESCRIPTIONS.items()},
        },
    }


def _request_schema(model: ServedModel, max_images: int) -> dict[str, Any]:
    seed = {"type": "integer", "minimum": 0, "maximum": SEED_LIMIT - 1}
    names = [{"enum": list(model.spec.class_names)}] if model.spec.class_names else []
    label = {
        "anyOf": [{"type": "integer", "minimum": 0, "maximum": model.spec.num_classes - 1}, {"type": "string"}, *names]
    }
    row = {
        "type": "array",
        "items": {"type": "number", "minimum": -MAX_LATENT, "maximum": MAX_LATENT},
        "minItems": model.config.latent.size,
        "maxItems": model.config.latent.size,
    }
    list_schema = {"type": "array", "minItems": 1, "maxItems": max_images}
    labels = (
        {
            "labels": {
                "description": "One class for all images, or a list with one per image.",
                "anyOf": [label, {**list_schema, "items": label}],
            }
        }
        if model.spec.num_classes
        else {}
    )
    return {
        "type": "object",
        "additionalProperties": False,
        "description": "At most one of seed, seeds and latents.",
        "allOf": [{"not": {"required": list(pair)}} for pair in combinations(("seed", "seeds", "latents"), 2)],
        **({"dependentRequired": {"latents": ["labels"]}} if model.spec.num_classes else {}),
        "properties": {
            "n": {
                "description": "Number of images.",
                "type": "integer",
                "minimum": 1,
                "maximum": max_images,
                "default": 1,
            },
            "seed": {"description": "Images 0 to n - 1 of `cardigan sample --seed`.", **seed},
            "seeds": {"description": "One image per seed.", **list_schema, "items": seed},
            **labels,
            "truncation": {
                "description": "Truncation from 1 (as trained) to 0 (the average image).",
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "default": 1,
            },
            "latents": {"description": "One row of z per image, instead of seeds.", **list_schema, "items": row},
        },
    }


def _examples(model: ServedModel) -> dict[str, dict[str, Any]]:
    """Return example requests that are valid for this model."""
    zeros = {"latents": [[0.0] * model.config.latent.size]}
    if not model.spec.num_classes:
        return {"a grid": {"n": 4, "seed": 0}, "seeds": {"seeds": [3, 7], "truncation": 0.7}, "latents": zeros}
    label = model.spec.class_names[0] if model.spec.class_names else 0
    return {
        "a grid": {"n": 4, "seed": 0},
        "one class": {"n": 2, "seed": 0, "labels": label},
        "seeds": {"seeds": [3, 7], "labels": [0, model.spec.num_classes - 1], "truncation": 0.7},
        "latents": {**zeros, "labels": label},
    }


def _response_schema() -> dict[str, Any]:
    numbers = {"type": ["array", "null"], "items": {"type": "integer"}}
    return {
        "type": "object",
        "required": ["images", "seed", "seeds", "labels", "truncation"],
        "properties": {
            "images": {
                "type": "array",
                "items": {"type": "string", "contentEncoding": "base64", "contentMediaType": "image/png"},
            },
            "seed": {"type": ["integer", "null"]},
            "seeds": numbers,
            "labels": numbers,
            "truncation": {"type": "number"},
        },
    }


def _get_operation(
    summary: str, media_type: str, schema: dict[str, Any], errors: dict[str, str] | None = None
) -> dict[str, Any]:
    error_responses = {
        status: _error_response(error_description) for status, error_description in (errors or {}).items()
    }
    return {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {media_type: {"schema": schema}}}, **error_responses},
    }


def _error_response(error_description: str) -> dict[str, Any]:
    return {
        "description": error_description,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
