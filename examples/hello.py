"""The smallest endpoint, with an image of its own."""

import modal

app = modal.App("seed")

image = modal.Image.debian_slim().pip_install("fastapi[standard]")


@app.function(image=image)
@modal.fastapi_endpoint()
def hello():
    return "Hello world!"
