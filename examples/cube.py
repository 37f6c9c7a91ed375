"""A JSON body as a dict:  curl --json '{"x": 3}' URL"""

import modal

app = modal.App("seed")

image = modal.Image.debian_slim().pip_install("fastapi[standard]")


@app.function(image=image)
@modal.fastapi_endpoint(method="POST")
def cube(item: dict):
    return {"cube": item["x"] ** 3}
