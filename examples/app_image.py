"""One image for all functions of an app."""

import modal

image = modal.Image.debian_slim().pip_install("fastapi[standard]").env({"GREETING": "Hello"})

app = modal.App("x", image=image)


@app.function()
@modal.fastapi_endpoint()
def greet(name: str = "world"):
    import os

    return f"{os.environ['GREETING']} {name}!"
