"""An async function: up to 100 requests at a time in one container, all on one event loop."""

import asyncio

import modal

app = modal.App("seed")


@app.function()
@modal.concurrent(max_inputs=100)
@modal.fastapi_endpoint()
async def wait(seconds: float = 0.1):
    await asyncio.sleep(seconds)
    return {"waited": seconds}
