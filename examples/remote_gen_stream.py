"""An endpoint that streams what a function in another container yields, as it comes.

    portico serve examples/remote_gen_stream.py
    curl -N <the URL>

`gpu="any"` asks for a GPU: `serve` warns where there is none, `deploy` wants --allow-missing-gpu.
"""

import time

import modal

app = modal.App("remote-gen-stream")
image = modal.Image.debian_slim().pip_install("fastapi[standard]")


@app.function(gpu="any")
def process_gpu():
    for i in range(10):
        yield f"data: result {i}\n\n".encode()
        time.sleep(1)


@app.function(image=image)
@modal.fastapi_endpoint()
def hook():
    from fastapi.responses import StreamingResponse

    return StreamingResponse(process_gpu.remote_gen(), media_type="text/event-stream")
