"""An app in a package, with a relative import."""

import modal

from .greetings import greeting

app = modal.App("packaged")


@app.function()
@modal.fastapi_endpoint()
def greet(name: str = "world"):
    return greeting(name)
