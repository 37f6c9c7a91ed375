"""Portico: Python functions as autoscaled web endpoints. `import portico as modal`, and Modal's examples run."""

from portico import exception
from portico.exception import Error
from portico.model.version import VERSION
from portico.sdk.absent import (
    CloudBucketMount,
    Dict,
    NetworkFileSystem,
    Proxy,
    Queue,
    Sandbox,
    Volume,
    batched,
)
from portico.sdk.absent import no_such_name as __getattr__
from portico.sdk.app import App
from portico.sdk.classes import Cls
from portico.sdk.context import enable_output, is_local
from portico.sdk.function_call import FunctionCall
from portico.sdk.functions import Function
from portico.sdk.image import Image
from portico.sdk.parameters import parameter
from portico.sdk.partial import concurrent, enter, exit, method
from portico.sdk.patterns import FilePatternMatcher
from portico.sdk.retries import Retries
from portico.sdk.schedule import Cron, Period
from portico.sdk.secret import Secret
from portico.sdk.web import asgi_app, fastapi_endpoint, web_endpoint, web_server, wsgi_app

__version__ = VERSION

__all__ = [
    "App",
    "CloudBucketMount",
    "Cls",
    "Cron",
    "Dict",
    "Error",
    "FilePatternMatcher",
    "Function",
    "FunctionCall",
    "Image",
    "NetworkFileSystem",
    "Period",
    "Proxy",
    "Queue",
    "Retries",
    "Sandbox",
    "Secret",
    "Volume",
    "__getattr__",
    "__version__",
    "asgi_app",
    "batched",
    "concurrent",
    "enable_output",
    "enter",
    "exception",
    "exit",
    "fastapi_endpoint",
    "is_local",
    "method",
    "parameter",
    "web_endpoint",
    "web_server",
    "wsgi_app",
]
