"""The same small answer three ways: an async function, a plain one, and a bare ASGI app."""

import modal

app = modal.App("profile")


@app.function(max_containers=1, scaledown_window=600)
@modal.concurrent(max_inputs=300)
@modal.fastapi_endpoint()
async def coroutine():
    return {"message": "Hello world!"}


@app.function(max_containers=2, scaledown_window=600)
@modal.fastapi_endpoint()
def plain():
    return {"message": "Hello world!"}


@app.function(max_containers=1, scaledown_window=600)
@modal.concurrent(max_inputs=300)
@modal.asgi_app()
def asgi():
    from bare import asgi

    return asgi
