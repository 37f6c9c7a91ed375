"""The web decorators and `@modal.concurrent`."""

import pytest

import portico as modal
from portico.exception import InvalidError
from portico.model.spec import WebKind

FACTORIES = [modal.asgi_app(), modal.wsgi_app(), modal.web_server(8000)]


def nullary():
    """A function without parameters."""


def unary(x=1):
    """A function with a parameter."""


async def coroutine():
    """An async function."""


def test_kinds():
    """Each decorator leaves its kind."""
    decorators = [modal.fastapi_endpoint(), *FACTORIES]
    assert [decorator(nullary).web.kind for decorator in decorators] == list(WebKind)


def test_the_function_stays_callable():
    """What a decorator gives can be called like the function."""
    assert modal.fastapi_endpoint()(lambda x: x + 1)(1) == 2


@pytest.mark.parametrize("decorator", FACTORIES)
def test_factories_take_no_parameters(decorator):
    """A function that gives an app is called without arguments."""
    with pytest.raises(InvalidError, match="can't have parameters"):
        decorator(unary)


@pytest.mark.parametrize("decorator", FACTORIES)
def test_factories_are_not_async(decorator):
    """A function that gives an app is not awaited."""
    with pytest.raises(InvalidError, match="can't be applied to an async function"):
        decorator(coroutine)


@pytest.mark.parametrize("decorator", FACTORIES)
def test_factories_as_methods(decorator):
    """A method's `self` is no parameter."""

    class User:
        @decorator
        def web(self):
            """Gives an app."""

    assert User.web.web is not None


@pytest.mark.parametrize("port", [0, 65536, "8000", True, None, nullary])
def test_bad_ports(port):
    """The first argument of `@web_server` is a port."""
    with pytest.raises(InvalidError, match="must be a local port"):
        modal.web_server(port)


@pytest.mark.parametrize("seconds", [0, -1, None, "5"])
def test_bad_startup_timeout(seconds):
    """A program gets some time to begin to listen."""
    with pytest.raises(InvalidError, match="must be positive"):
        modal.web_server(8000, startup_timeout=seconds)


@pytest.mark.parametrize("method", ["FETCH", "", None, 3])
def test_bad_methods(method):
    """Only HTTP's methods are methods."""
    with pytest.raises(InvalidError, match="Not an HTTP method"):
        modal.fastapi_endpoint(method=method)


@pytest.mark.parametrize("label", ["Api", "a_b", "12", "-a", "x" * 64, 3])
def test_bad_labels(label):
    """A label must be one that DNS takes."""
    with pytest.raises(InvalidError, match="label"):
        modal.asgi_app(label=label)


def test_bare_string_as_domains():
    """A bare string would be taken apart into letters; the error shows the list."""
    with pytest.raises(InvalidError, match="not a bare string") as caught:
        modal.fastapi_endpoint(custom_domains="api.example.com")
    assert "['api.example.com']" in caught.value.hint


def test_domains():
    """Domains arrive as DNS has them, each once, wildcards too; what is no domain is refused."""
    names = ["API.example.com", "*.example.com", "bücher.example", "api.example.com"]
    web = modal.fastapi_endpoint(custom_domains=names)(nullary).web
    assert web.custom_domains == ("api.example.com", "*.example.com", "xn--bcher-kva.example")
    for bad in ("http://example.com", "example", "a b.com", 3):
        with pytest.raises(InvalidError, match="fastapi_endpoint`: Not a domain name"):
            modal.fastapi_endpoint(custom_domains=[bad])


@pytest.mark.parametrize("wrong", [3, True])
def test_domains_that_are_no_list(wrong):
    """The error says what they should be."""
    with pytest.raises(InvalidError, match="must be a list of strings"):
        modal.wsgi_app(custom_domains=wrong)


@pytest.mark.parametrize(
    "decorator",
    [modal.fastapi_endpoint, modal.asgi_app, modal.wsgi_app, lambda **options: modal.web_server(8000, **options)],
)
def test_every_decorator_takes_domains(decorator):
    """All four."""
    assert decorator(custom_domains=["a.example.com"])(nullary).web.custom_domains == ("a.example.com",)


def test_two_web_decorators():
    """A function is reached in one way."""
    with pytest.raises(InvalidError, match="cannot both be applied"):
        modal.fastapi_endpoint()(modal.asgi_app()(nullary))


@pytest.mark.parametrize(
    ("decorator", "example"), [(modal.fastapi_endpoint, "fastapi_endpoint()"), (modal.asgi_app, "asgi_app()")]
)
def test_forgotten_parentheses(decorator, example):
    """A decorator without its parentheses says so."""
    with pytest.raises(InvalidError) as caught:
        decorator(nullary)
    assert f"@modal.{example}" in caught.value.hint


def test_class():
    """A web decorator does not go on a class."""
    with pytest.raises(InvalidError, match="to a class"):
        modal.asgi_app()(type("User", (), {}))


def test_old_name():
    """The old name of the decorator names the new one."""
    with pytest.raises(InvalidError) as caught:
        modal.web_endpoint(method="POST")
    assert "@modal.fastapi_endpoint" in caught.value.hint


def test_concurrent_without_a_number():
    """`max_inputs` is not optional."""
    with pytest.raises(TypeError, match="`max_inputs`"):
        modal.concurrent()


@pytest.mark.parametrize("options", [{"max_inputs": 0}, {"max_inputs": 1.5}, {"max_inputs": 2, "target_inputs": 0}])
def test_concurrent_with_nonsense(options):
    """Numbers of inputs are positive and whole."""
    with pytest.raises(InvalidError, match="positive whole number"):
        modal.concurrent(**options)


def test_concurrent_target_above_maximum():
    """A container cannot aim at more than it takes."""
    with pytest.raises(InvalidError, match="cannot be greater than `max_inputs`"):
        modal.concurrent(max_inputs=1, target_inputs=2)


def test_concurrent_twice():
    """It is said once how many inputs a container takes."""
    with pytest.raises(InvalidError, match="twice"):
        modal.concurrent(max_inputs=1)(modal.concurrent(max_inputs=2)(nullary))
