"""A class whose methods are called: from an endpoint, and from the command line.

    portico serve examples/class_methods.py
    portico run examples/class_methods.py::Counter.count --step 2 --to 3
    portico run examples/class_methods.py

Each step has containers of its own.
"""

import asyncio

import modal

app = modal.App("class-methods")


@app.cls()
@modal.concurrent(max_inputs=10)
class Counter:
    step: int = modal.parameter(default=1)

    @modal.enter()
    async def open(self):
        self.lock = asyncio.Lock()  # of the loop that all async methods run on

    @modal.method()
    async def square(self, x: int) -> int:
        async with self.lock:
            return (x * self.step) ** 2

    @modal.method()
    def count(self, to: int = 3):
        for i in range(to):
            yield i * self.step


@app.function()
@modal.fastapi_endpoint()
async def total(step: int = 1, to: int = 4):
    counter = Counter(step=step)
    squares = [square async for square in counter.square.map.aio(range(to))]
    return {"squares": squares, "counted": [i async for i in counter.count.remote_gen.aio(to)]}


@app.local_entrypoint()
def main():
    print(sum(Counter(step=2).square.map(range(10))))
