"""An endpoint that knows its own URL."""

import modal

app = modal.App("seed")


@app.function()
@modal.fastapi_endpoint()
def my_endpoint():
    return {"url": my_endpoint.get_web_url()}
