"""What the server can be asked, as OpenAPI 3.1 describes it. A test compares it with the routes and runs its examples.

Knows the model's sizes and classes, nothing of how it is drawn.
"""

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
    "400": "The request makes no sense; the sentence says what was given, what was expected and what to do.",
    "401": "The token is missing or wrong (only where the server is not on this machine alone).",
    "403": "The Host or the Origin is none that this server answers to (only on this machine).",
    "406": "None of the kinds in Accept can be given.",
    "408": "The request did not come in time.",
    "413": "More pictures or bytes than one request may have.",
    "429": "Too many pictures wait already; Retry-After says in how many seconds there will be room.",
    "500": "The server failed.",
    "503": "The server is stopping.",
    "504": "The pictures were not drawn in time.",
}


def openapi_schema(model: ServedModel, max_images: int) -> dict[str, Any]:
    """Return the whole description, as plain JSON values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"Images of {model.name}",
            "version": "1",
            "summary": "Pictures from a generator that Cardigan trained: the same seed gives the same picture, whoever else asks.",
        },
        "paths": {
            "/v1/images": {"post": _images_operation(model, max_images)},
            "/v1/model": {
                "get": _get_operation(
                    "What the model is: size, classes, latents, settings, hash and limits.",
                    "application/json",
                    {"type": "object"},
                )
            },
            "/healthz": {
                "get": {
                    **_get_operation(
                        "Whether pictures are drawn.", "application/json", {"type": "object"}, {"503": "Not now."}
                    ),
                    "security": [],
                }
            },
            "/metrics": {"get": _get_operation("Numbers for Prometheus.", "text/plain", {"type": "string"})},
            "/openapi.json": {"get": _get_operation("This description.", "application/json", {"type": "object"})},
            "/": {"get": {**_get_operation("A page to try it on.", "text/html", {"type": "string"}), "security": []}},
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
        "summary": "Draw pictures.",
        "operationId": "generateImages",
        "requestBody": {
            "required": False,
            "description": "Without a body, one picture of a seed that nobody chose.",
            "content": {
                "application/json": {
                    "schema": _request_schema(model, max_images),
                    "examples": {name: {"value": value} for name, value in examples.items()},
                }
            },
        },
        "responses": {
            "200": {
                "description": "The pictures, in the kind that Accept asks for; by default a PNG: the picture, or a sheet of all.",
                "headers": {
                    "Cardigan-Seed": {"description": "The one seed of all pictures.", "schema": {"type": "integer"}},
                    "Cardigan-Seeds": {
                        "description": "A seed for each picture, of 64 at most.",
                        "schema": {"type": "string"},
                    },
                    "Cardigan-Labels": {
                        "description": "The class of each picture, of 64 at most.",
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
                "description": "One class for all or one for each.",
                "anyOf": [label, {**list_schema, "items": label}],
            }
        }
        if model.spec.num_classes
        else {}
    )
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "n": {
                "description": "How many pictures.",
                "type": "integer",
                "minimum": 1,
                "maximum": max_images,
                "default": 1,
            },
            "seed": {"description": "The pictures of `cardigan sample --seed`, number 0 to n - 1.", **seed},
            "seeds": {"description": "One picture for each of these.", **list_schema, "items": seed},
            **labels,
            "truncation": {
                "description": "From 1, as trained, to 0, the average picture.",
                "type": "number",
                "minimum": 0,
                "maximum": 1,
                "default": 1,
            },
            "latents": {"description": "Rows of z, instead of seeds.", **list_schema, "items": row},
        },
    }


def _examples(model: ServedModel) -> dict[str, dict[str, Any]]:
    """Return requests that this very server answers."""
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
