"""An async endpoint with one container."""

import modal

app = modal.App("bench-latency")


@app.function(min_containers=1, max_containers=1)
@modal.concurrent(max_inputs=1000)
@modal.fastapi_endpoint()
async def hello():
    return {"message": "Hello world!"}
