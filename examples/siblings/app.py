"""A file that imports its neighbours: a module and a package."""

import modal
from shapes import area
from words.plural import plural

app = modal.App("siblings")


@app.function()
@modal.fastapi_endpoint()
def rectangle(a: float, b: float):
    return {"area": area(a, b), "of": plural("rectangle")}
