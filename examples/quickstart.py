"""Two endpoints. Try:  portico serve examples/quickstart.py"""

import modal

app = modal.App("quickstart")


@app.function()
@modal.fastapi_endpoint()
def hello():
    return "Hello world!"


@app.function()
@modal.fastapi_endpoint()
def square(x: int):
    return {"square": x**2}
