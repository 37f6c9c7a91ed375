"""App and `@app.function`: what becomes of their options, and which of them are refused."""

import pytest

import portico as modal
from portico.exception import ExecutionError, InvalidError, UnsupportedError
from portico.model.naming import call_host
from portico.model.spec import EntrySpec, RetryPolicy, WebKind
from portico.wire.calls import CONTROL_DOMAIN, other_host

ENTRY = EntrySpec(module="app", path="app.py")


def plain():
    """A function of the user."""
    return "plain"


def generator():
    """A generator function of the user."""
    yield 1


async def async_generator():
    """An async generator function of the user."""
    yield 1


def spec_of(app, name="plain"):
    return {function.name: function for function in app.spec(ENTRY).functions}[name]


def test_a_function_becomes_a_specification():
    """Name, place and options are in the specification, with the defaults of the API."""
    app = modal.App("seed")
    function = app.function()(modal.fastapi_endpoint(method="post", docs=True, label="api")(plain))
    spec = spec_of(app)
    assert function.local() == "plain"
    assert (spec.name, spec.module, spec.qualname) == ("plain", __name__, "plain")
    assert (spec.web.kind, spec.web.method, spec.web.docs, spec.web.label) == (
        WebKind.FASTAPI_ENDPOINT,
        "POST",
        True,
        "api",
    )
    assert (spec.timeout, spec.autoscaler.scaledown_window, spec.concurrency.max_inputs) == (300, 60.0, 1)


def test_options_arrive():
    """Every option that this server offers is in the specification."""
    app = modal.App("seed")
    app.function(
        name="other",
        cpu=(0.5, 2),
        memory=(128, 256),
        gpu=["A100:2", "any"],
        min_containers=1,
        max_containers=4,
        buffer_containers=2,
        scaledown_window=2,
        timeout=86_400,
        startup_timeout=10,
        enable_memory_snapshot=True,
        single_use_containers=True,
    )(modal.concurrent(max_inputs=10, target_inputs=5)(plain))
    spec = spec_of(app, "other")
    assert (spec.resources.cpu, spec.resources.cpu_limit) == (0.5, 2)
    assert (spec.resources.memory, spec.resources.memory_limit) == (128, 256)
    assert spec.resources.gpu == ("A100:2", "any")
    scaling = spec.autoscaler
    assert (scaling.min_containers, scaling.max_containers, scaling.buffer_containers) == (1, 4, 2)
    assert (scaling.scaledown_window, spec.timeout, spec.startup_timeout) == (2.0, 86_400, 10.0)
    assert (spec.concurrency.max_inputs, spec.concurrency.target_inputs) == (10, 5)
    assert spec.enable_memory_snapshot
    assert spec.single_use_containers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scaledown_window": 1}, "between 2 and 3600"),
        ({"scaledown_window": 3601}, "between 2 and 3600"),
        ({"min_containers": 2, "max_containers": 1}, "cannot be greater than `max_containers`"),
        ({"min_containers": -1}, "`min_containers` must be at least 0"),
        ({"min_containers": 1.5}, "`min_containers` must be a whole number"),
        ({"max_containers": 0}, "`max_containers` must be at least 1"),
        ({"buffer_containers": True}, "`buffer_containers` must be a whole number"),
        ({"timeout": None}, "`timeout` parameter cannot be set to None"),
        ({"timeout": 0}, "`timeout` must be between 1 and 86400"),
        ({"timeout": 90_000}, "`timeout` must be between 1 and 86400"),
        ({"startup_timeout": 0}, "`startup_timeout` must be"),
        ({"cpu": 0}, "`cpu` must be positive"),
        ({"cpu": (2, 1)}, "cpu limit lower than the request"),
        ({"memory": (2, 1)}, "memory limit lower than the request"),
        ({"memory": 1.5}, "whole number of MiB"),
        ({"gpu": "A100:many"}, "Invalid GPU count"),
        ({"gpu": 3}, "Invalid GPU"),
        ({"image": "debian"}, "has to be a `modal.Image` object"),
        ({"secrets": ["A"]}, "must be a list of `modal.Secret` objects"),
        ({"env": {"A": 1}}, "`env=` must have strings"),
        ({"name": "a b"}, "Invalid Function name"),
        ({"retries": "3"}, "`retries` must be"),
        ({"max_inputs": 2}, "Only `max_inputs=1`"),
    ],
)
def test_values_that_make_no_sense(options, message):
    """A value out of its range is an error that names the option."""
    with pytest.raises(InvalidError, match=message):
        modal.App("seed").function(**options)(plain)


@pytest.mark.parametrize(
    "options",
    [
        {"volumes": {"/data": modal.Volume.from_name("v", create_if_missing=True)}},
        {"network_file_systems": {"/data": modal.NetworkFileSystem.from_name("n")}},
        {"schedule": modal.Cron("0 9 * * 1")},
        {"schedule": modal.Period(days=1)},
        {"proxy": modal.Proxy.from_name("p")},
        {"block_network": True},
        {"restrict_modal_access": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_this_server_has_not_is_refused(options):
    """An option that is not offered is an error with its name, never ignored."""
    with pytest.raises(UnsupportedError, match="not supported by this server yet"):
        modal.App("seed").function(**options)(plain)


@pytest.mark.parametrize(
    "options",
    [
        {"cloud": "aws"},
        {"region": ["eu"]},
        {"routing_region": "eu"},
        {"nonpreemptible": True},
        {"i6pn": True},
        {"ephemeral_disk": 1024},
        {"experimental_options": {"x": 1}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_means_nothing_here_is_said_once(options):
    """An option without a meaning on own machines gives one warning, however often it is used."""
    app = modal.App("seed")
    app.function(**options, name="one")(plain)
    app.function(**options, name="two")(plain)
    (warning,) = app.spec(ENTRY).warnings
    assert next(iter(options)) in warning


def test_environment_in_order():
    """The app's secrets come first, then the function's, then env=; the later ones win, and None is left out."""
    app = modal.App("seed", secrets=[modal.Secret.from_dict({"A": "app", "B": "app", "C": "app"})])
    app.function(secrets=[modal.Secret.from_dict({"B": "secret", "C": "secret"})], env={"C": "env", "D": None})(plain)
    spec = spec_of(app)
    assert [secret.values for secret in spec.secrets] == [
        {"A": "app", "B": "app", "C": "app"},
        {"B": "secret", "C": "secret"},
    ]
    assert spec.env == {"C": "env"}


@pytest.mark.parametrize(
    "decorator",
    [
        modal.fastapi_endpoint(),
        modal.asgi_app(),
        modal.wsgi_app(),
        modal.web_server(8000),
        modal.concurrent(max_inputs=2),
    ],
)
def test_decorators_in_the_wrong_order(decorator):
    """A decorator above `@app.function` says that the two must be swapped."""
    function = modal.App("seed").function()(plain)
    with pytest.raises(InvalidError, match=r"Cannot stack .* on top of `@app.function`") as caught:
        decorator(function)
    assert "swap the order of the decorators" in caught.value.hint


@pytest.mark.parametrize("wrapped", [generator, async_generator])
def test_generator_as_endpoint(wrapped):
    """An endpoint cannot be a generator, and the error names the way to stream."""
    with pytest.raises(InvalidError, match="Webhooks cannot be generators") as caught:
        modal.App("seed").function()(modal.fastapi_endpoint()(wrapped))
    assert "StreamingResponse" in caught.value.hint


def test_generator_function():
    """A generator without a web decorator is known as one."""
    app = modal.App("seed")
    app.function()(generator)
    assert spec_of(app, "generator").is_generator


def test_retries_on_an_endpoint():
    """Web functions are not retried."""
    with pytest.raises(InvalidError, match="Web Functions do not support retries"):
        modal.App("seed").function(retries=3)(modal.fastapi_endpoint()(plain))


def test_retries_on_a_generator():
    """Generators are not retried."""
    with pytest.raises(InvalidError, match="Generator Functions do not support retries"):
        modal.App("seed").function(retries=modal.Retries(max_retries=1))(generator)


def test_retries_on_a_function():
    """A number is that many, one second apart; no retries are none."""
    said = [modal.App("seed").function(retries=number)(plain).spec.retries for number in (3, 0, None)]
    assert said == [RetryPolicy(max_retries=3, backoff_coefficient=1.0, initial_delay=1.0), None, None]
    given = modal.Retries(max_retries=2, initial_delay=0.5)
    assert modal.App("seed").function(retries=given)(plain).spec.retries == RetryPolicy(
        max_retries=2, backoff_coefficient=2.0, initial_delay=0.5
    )


def test_a_class():
    """`@app.function` on a class is a TypeError that points to `@app.cls`."""
    with pytest.raises(TypeError, match=r"Please use `@app\.cls` instead"):
        modal.App("seed").function()(type("User", (), {}))


def test_a_method():
    """`@app.function` on a method is an error that shows how it is written."""
    app = modal.App("seed")
    with pytest.raises(InvalidError, match="cannot be used on class methods") as caught:

        class User:
            @app.function(serialized=True)
            def method(self):
                """Does nothing."""

    assert "@modal.method()" in caught.value.hint


def test_a_local_function():
    """A function inside a function must travel by value."""

    def local():
        """Does nothing."""

    with pytest.raises(InvalidError, match="global scope, unless `serialized=True`") as caught:
        modal.App("seed").function()(local)
    assert "functools.wraps" in caught.value.hint


def test_a_lambda():
    """A lambda has no name to be an endpoint under."""
    with pytest.raises(InvalidError, match="lambda"):
        modal.App("seed").function(serialized=True)(lambda: None)


def test_not_a_function():
    """Something else is not a function of an app."""
    with pytest.raises(InvalidError, match="must be used on a function"):
        modal.App("seed").function()(3)


def test_twice():
    """A function belongs to an app once."""
    app = modal.App("seed")
    with pytest.raises(InvalidError, match="already on"):
        app.function()(app.function()(plain))


def test_forgotten_parentheses():
    """A decorator without its parentheses says so."""
    with pytest.raises(InvalidError) as caught:
        modal.App("seed").function(plain)
    assert "forget the parentheses" in caught.value.hint


def test_same_name_twice():
    """Of two functions with one name the last one counts, and that is said."""
    app = modal.App("seed")
    app.function(name="same")(plain)
    app.function(name="same")(generator)
    spec = app.spec(ENTRY)
    assert [function.qualname for function in spec.functions] == ["generator"]
    assert "collision" in spec.warnings[0]


def test_same_url_twice():
    """Two endpoints that would have one URL are an error that names both."""
    app = modal.App("seed")
    app.function(name="a_b")(modal.fastapi_endpoint()(plain))
    app.function(name="a-b")(modal.fastapi_endpoint()(plain))
    with pytest.raises(InvalidError, match="'a_b' and 'a-b' would have the same URL"):
        app.spec(ENTRY)


def test_duplicate_entrypoint():
    """Two local entrypoints with one name are an error."""
    app = modal.App("seed")
    app.local_entrypoint()(plain)
    with pytest.raises(InvalidError, match="Duplicate local entrypoint name: plain"):
        app.local_entrypoint()(plain)


def test_include():
    """An app that includes another has its endpoints and its warnings too."""
    other = modal.App("other")
    other.function(cloud="x")(modal.fastapi_endpoint()(plain))
    app = modal.App("seed").include(other)
    spec = app.spec(ENTRY)
    assert [function.name for function in spec.web_functions] == ["plain"]
    assert len(spec.warnings) == 1


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "ap-" + "a" * 22])
def test_bad_app_names(name):
    """An app's name is checked when it is made."""
    with pytest.raises(InvalidError, match="Invalid App name"):
        modal.App(name)


def test_app_arguments_of_the_wrong_type():
    """The app's own arguments are checked like those of its functions."""
    for arguments in ({"name": 3}, {"image": "x"}, {"secrets": "x"}, {"tags": {"a b": "c"}}):
        with pytest.raises(InvalidError):
            modal.App(**arguments)
    with pytest.raises(UnsupportedError, match="volumes="):
        modal.App("seed", volumes={"/data": modal.Volume.from_name("v")})


def test_app_image_is_the_default():
    """A function without an image has that of its app."""
    app = modal.App("seed", image=modal.Image.debian_slim().pip_install("numpy"))
    app.function()(plain)
    app.function(image=modal.Image.debian_slim(), name="own")(plain)
    assert [step.arguments for step in spec_of(app).image.steps] == [("numpy",)]
    assert spec_of(app, "own").image.steps == ()


def test_name_of_the_specification():
    """A name from outside wins over the app's own; without either there is none."""
    assert modal.App("seed").spec(ENTRY, name="other").name == "other"
    assert modal.App("seed").spec(ENTRY).name == "seed"
    assert modal.App().spec(ENTRY).name is None


def test_members_that_come_later():
    """What the API has and Portico has not yet is named in the error; a typo is an AttributeError."""
    app = modal.App("seed")
    with pytest.raises(UnsupportedError, match=r"modal\.App\.run"):
        app.run()
    with pytest.raises(AttributeError, match="runn"):
        _ = app.runn


def test_calls_of_an_endpoint():
    """An endpoint cannot be called like a function, and the error says how it is used."""
    function = modal.App("seed").function()(modal.fastapi_endpoint()(plain))
    for verb in ("remote", "remote_gen", "map", "starmap", "for_each", "spawn"):
        with pytest.raises(InvalidError, match=f"cannot be invoked for remote execution with `.{verb}`") as caught:
            getattr(function, verb)(*([()] if verb == "starmap" else []))
        assert "plain.local()" in str(caught.value)


async def test_calls_of_a_function():
    """Where its app does not run, it cannot be called, and the error says how to run it."""
    function = modal.App("seed").function()(plain)
    with pytest.raises(ExecutionError, match="its app does not run"):
        function.remote()
    with pytest.raises(ExecutionError, match="its app does not run"):
        await function.remote.aio()
    with pytest.raises(ExecutionError, match="its app does not run") as caught:
        function.map.aio([1])
    assert "portico run FILE" in caught.value.hint
    with pytest.raises(ExecutionError, match="its app does not run"):
        function.spawn()
    with pytest.raises(ExecutionError, match="its app does not run"):
        function.update_autoscaler(min_containers=1)


def test_calls_of_the_wrong_kind():
    """The error comes at once, and names the right verb."""
    app = modal.App("seed")

    def many():
        yield 1

    function = app.function(serialized=True)(plain)
    generator = app.function(serialized=True)(many)
    with pytest.raises(InvalidError, match=r"`\.remote\(...\)`. Use `.remote_gen\(...\)` instead"):
        generator.remote()
    with pytest.raises(InvalidError, match=r"A generator function cannot be called with `\.map"):
        generator.map([1])
    with pytest.raises(InvalidError, match=r"Use `.remote\(...\)` instead"):
        function.remote_gen()


def test_calling_it_directly():
    """A function of an app is not called as if it were plain."""
    with pytest.raises(TypeError, match=r"plain\.local"):
        modal.App("seed").function()(plain)()


def test_url_outside_of_a_container():
    """On the user's side a function does not know its URL, and says where to ask."""
    function = modal.App("seed").function()(modal.fastapi_endpoint()(plain))
    with pytest.raises(ExecutionError) as caught:
        function.get_web_url()
    assert 'Function.from_name("seed", "plain")' in caught.value.hint


async def test_url_of_a_deployed_function(monkeypatch):
    """A function that is looked up by name asks the server, when it is asked and not before."""
    asked = []
    monkeypatch.setattr(
        "portico.client.calls.ask", lambda route, say: asked.append(route.hosts) or {"url": "http://there"}
    )
    function = modal.Function.from_name("seed", "square", environment_name="main")
    assert asked == []
    assert function.get_web_url() == "http://there"
    assert await function.get_web_url.aio() == "http://there"
    assert asked == [(other_host(call_host("main", "seed", "square"), CONTROL_DOMAIN),)] * 2


def test_looked_up_function_has_no_code():
    """A function that is looked up by name cannot be called here."""
    with pytest.raises(ExecutionError, match="looked up by name"):
        modal.Function.from_name("seed", "square").local()


def test_method_is_no_function():
    """A name with a dot is a method's, and the error names the way to look it up."""
    with pytest.raises(InvalidError) as caught:
        modal.Function.from_name("seed", "Model.web")
    assert "Cls.from_name" in caught.value.hint


async def test_local_can_be_awaited():
    """Whatever kind of function it is; a lookup has no code here, there too."""
    app = modal.App("seed")

    def double(x):
        return 2 * x

    async def triple(x):
        return 3 * x

    def count(n):
        yield from range(n)

    async def count_slowly(n):
        for i in range(n):
            yield i

    def own(raw):
        return app.function(serialized=True)(raw).local.aio

    assert await own(double)(2) == 4
    assert await own(triple)(2) == 6
    assert [i async for i in own(count)(3)] == [0, 1, 2]
    assert [i async for i in own(count_slowly)(3)] == [0, 1, 2]
    with pytest.raises(modal.exception.ExecutionError, match="looked up by name"):
        modal.Function.from_name("seed", "square").local.aio(1)
