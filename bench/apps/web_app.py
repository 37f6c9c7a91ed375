"""The web app as a function with one container."""

import modal

app = modal.App("bench-web")


@app.function(min_containers=1, max_containers=1)
@modal.concurrent(max_inputs=4000)
@modal.asgi_app()
def web():
    from web import application

    return application()
