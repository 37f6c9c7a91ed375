"""An upload that is counted as it comes. How large it may be, and how many a second, the server is told:

portico workspace set max-body 10MiB --app limits
portico workspace set rate-limit 5 --app limits --function upload
curl --data-binary @file URL
"""

import modal
from fastapi import Request

app = modal.App("limits")


@app.function()
@modal.fastapi_endpoint(method="POST")
async def upload(request: Request):
    size = 0
    async for piece in request.stream():
        size += len(piece)
    return {"bytes": size, "from": request.client.host}
