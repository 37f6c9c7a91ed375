"""The same function, with all of its containers there already."""

import time

import modal

app = modal.App("bench-burst-warm")


@app.function(min_containers=20, max_containers=20)
@modal.fastapi_endpoint()
def warm():
    time.sleep(0.05)
    return "done"
