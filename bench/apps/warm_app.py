"""One async endpoint that takes many inputs at once."""

import modal

app = modal.App("warm")


@app.function(scaledown_window=600, max_containers=1)
@modal.concurrent(max_inputs=1000)
@modal.fastapi_endpoint()
async def hello():
    return {"message": "Hello world!"}


@app.function(scaledown_window=600, max_containers=1)
@modal.fastapi_endpoint()
def idle():
    return "idle"
