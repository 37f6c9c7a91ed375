"""One endpoint hands a long job over and answers at once, another one tells what came of it.

portico serve examples/spawn_poll.py
curl '<the URL of submit>?text=hello'
curl '<the URL of result>?call_id=fc-…'
"""

import time

import modal

app = modal.App("spawn-poll")
image = modal.Image.debian_slim().pip_install("fastapi[standard]")


@app.function(retries=2)
def long_job(text: str) -> str:
    time.sleep(1)
    return text.upper()


@app.function(image=image)
@modal.fastapi_endpoint()
async def submit(text: str):
    call = await long_job.spawn.aio(text)
    return {"call_id": call.object_id}


@app.function(image=image)
@modal.fastapi_endpoint()
async def result(call_id: str):
    from fastapi.responses import JSONResponse

    call = modal.FunctionCall.from_id(call_id)
    try:
        return {"result": await call.get.aio(timeout=0)}
    except TimeoutError:
        return JSONResponse({"state": "running"}, status_code=202)
    except modal.exception.OutputExpiredError:
        return JSONResponse({"state": "expired"}, status_code=404)
