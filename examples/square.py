"""A query parameter with a type:  curl "URL?x=7" """

import modal

app = modal.App("seed")

image = modal.Image.debian_slim().pip_install("fastapi[standard]")


@app.function(image=image)
@modal.fastapi_endpoint()
def square(x: int):
    return {"square": x**2}
