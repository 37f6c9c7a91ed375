"""A JSON body as a pydantic model:  curl --json '{"name": "nut"}' URL"""

import modal

app = modal.App("seed")

from pydantic import BaseModel


class Item(BaseModel):
    name: str
    qty: int = 42


@app.function()  # no image given: works all the same
@modal.fastapi_endpoint(method="POST")
def process(item: Item):
    return {"processed": item.name, "quantity": item.qty}
