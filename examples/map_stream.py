"""An endpoint that streams the results of many calls, in order, as they come.

portico serve examples/map_stream.py
curl -N <the URL>
"""

import modal

app = modal.App("map-stream")
image = modal.Image.debian_slim().pip_install("fastapi[standard]")


@app.function()
def process_segment(i):
    return f"segment {i}\n"


@app.function(image=image)
@modal.fastapi_endpoint()
def stream_parallel():
    from fastapi.responses import StreamingResponse

    return StreamingResponse(process_segment.map(range(10)), media_type="text/plain")
