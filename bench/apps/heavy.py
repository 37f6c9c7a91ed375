"""A module that imports numpy and pandas, for bare uvicorn."""

import numpy
import pandas
from fastapi import FastAPI

application = FastAPI(openapi_url=None)


@application.get("/")
def square(x: int = 3):
    return {"square": int(numpy.square(pandas.Series([x]))[0])}
