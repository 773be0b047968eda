"""HTTP: the FastAPI app, its routes, the OpenAPI document, and errors as problem details."""
