"""What most endpoints are: a sync handler, one input at a time."""

import modal

app = modal.App("bench-sync")


@app.function(min_containers=1, max_containers=1)
@modal.fastapi_endpoint()
def hello():
    return {"message": "Hello world!"}
