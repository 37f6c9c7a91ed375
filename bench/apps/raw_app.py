"""The least that an app can be: an ASGI callable without a framework."""

import modal

app = modal.App("bench-raw")


@app.function(min_containers=1, max_containers=1)
@modal.concurrent(max_inputs=1000)
@modal.asgi_app()
def hello():
    from raw import application

    return application
