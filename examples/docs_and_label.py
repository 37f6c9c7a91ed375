"""Interactive documentation at /docs, the schema at /openapi.json, and a label of its own in the URL."""

import modal

app = modal.App("seed")


@app.function()
@modal.fastapi_endpoint(docs=True, label="api")
def greet(name: str = "world"):
    """Says hello."""
    return {"greeting": f"Hello {name}!"}
