"""A function that takes its time, one input per container, and has no containers between bursts."""

import time

import modal

app = modal.App("bench-burst")


@app.function(scaledown_window=2, max_containers=20)
@modal.fastapi_endpoint()
def cold():
    time.sleep(0.05)
    return "done"
