"""`@app.cls`: what becomes of classes, their use in this process, and what is refused."""

from __future__ import annotations

import asyncio
import pickle
import sys

import pytest

import portico as modal
from portico.exception import ExecutionError, InvalidError, UnsupportedError
from portico.model.spec import EntrySpec, ParameterKind, ParameterSpec, WebKind

ENTRY = EntrySpec(module="app", path="app.py")


class Base:
    """A class in no app."""

    size: int = modal.parameter(default=3)

    @modal.enter()
    def first(self):
        self.log = ["first"]

    @modal.method()
    def inherited(self):
        return self.log

    @modal.method()
    def replaced(self):
        return "base"


class Model(Base):
    """A class of the user."""

    COLOUR = "red"
    name: str = modal.parameter()
    kind: str = modal.parameter(default="plain", init=False)

    @modal.enter()
    async def second(self):
        await asyncio.sleep(0)
        self.log.append("second")

    @modal.enter(snap=True)
    def snapped(self):
        self.snap = True

    @modal.method()
    def replaced(self):
        return "model", self.name, self.size

    @modal.method()
    async def later(self, x):
        return x, list(self.log)

    @modal.method()
    def count(self, n):
        yield from range(n)

    @modal.method()
    async def acount(self, n):
        for i in range(n):
            yield i

    @modal.method(is_generator=True)
    def counter(self, n):
        return iter(range(n))

    @modal.method()
    def both(self):
        return self.replaced(), self.replaced.local(), self.plain()

    @modal.fastapi_endpoint(label="api")
    def web(self, x: int):
        return x

    @modal.exit()
    def last(self):
        pass

    def plain(self):
        """Not decorated."""
        return "plain"


def cls_of(raw, **options):
    app = modal.App("seed")
    return app, app.cls(**{"enable_memory_snapshot": True, **options})(raw)


def spec_of(app):
    return app.spec(ENTRY).functions[0]


def test_a_class_becomes_one_specification():
    """One for all methods, those of bases first, with its parameters."""
    app, _ = cls_of(Model, timeout=7)
    spec = spec_of(app)
    assert (spec.name, spec.module, spec.qualname, spec.timeout) == ("Model", __name__, "Model", 7)
    names = [method.name for method in spec.cls.methods]
    assert names == ["inherited", "replaced", "later", "count", "acount", "counter", "both", "web"]
    assert [method.name for method in spec.cls.methods if method.is_generator] == ["count", "acount", "counter"]
    assert spec.cls.parameters == (
        ParameterSpec(name="size", kind=ParameterKind.INT, default="3"),
        ParameterSpec(name="name", kind=ParameterKind.STR),
    )


def test_methods_are_the_parts_of_a_class():
    """Each with a name of its own, and all else as the class has it."""
    app, _ = cls_of(Model, timeout=7)
    parts = {part.name: part for part in spec_of(app).parts}
    assert (parts["Model.web"].web.kind, parts["Model.web"].web.label) == (WebKind.FASTAPI_ENDPOINT, "api")
    assert (parts["Model.count"].is_generator, parts["Model.count"].timeout, parts["Model.count"].web) == (
        True,
        7,
        None,
    )
    assert [part.name for part in app.spec(ENTRY).web_functions] == ["Model.web"]


def test_concurrency_belongs_to_the_class():
    """`@modal.concurrent` stands below `@app.cls`; on a method it is an error."""
    app, _ = cls_of(modal.concurrent(max_inputs=5, target_inputs=2)(Base))
    concurrency = spec_of(app).concurrency
    assert (concurrency.max_inputs, concurrency.target_inputs) == (5, 2)

    class Wrong:
        @modal.method()
        @modal.concurrent(max_inputs=2)
        def f(self):
            pass

    with pytest.raises(InvalidError, match="cannot be used on methods; decorate the class instead"):
        cls_of(Wrong, serialized=True)


def test_an_object_lives_in_this_process_too():
    """`local` makes the object, runs what is to happen first, once and in order, and then the method."""
    _, cls = cls_of(Model)
    model = cls(name="a")
    assert model.replaced.local() == ("model", "a", 3)
    assert model.inherited.local() == ["first", "second"]
    assert model.snap is True
    assert list(model.count.local(3)) == [0, 1, 2]
    assert list(model.counter.local(2)) == [0, 1]
    assert model.both.local() == (("model", "a", 3), ("model", "a", 3), "plain")


def test_async_methods_live_in_this_process_too():
    """Where the first use is in a loop, so is what comes before it."""
    _, cls = cls_of(Model)

    async def use():
        model = cls(name="a", size=4)
        return await model.later.local(1), [i async for i in model.acount.local(2)]

    assert asyncio.run(use()) == ((1, ["first", "second"]), [0, 1])


def test_attributes_can_be_looked_at():
    """Parameters, what is not decorated, and what belongs to the class; that starts no life."""
    _, cls = cls_of(Model)
    model = cls(name="a")
    assert (model.name, model.size, model.kind, model.plain(), cls.COLOUR) == ("a", 3, "plain", "plain", "red")
    assert not hasattr(model, "log")


def test_a_class_without_an_app_is_a_plain_class():
    """Its methods are methods."""
    model = Base()
    model.first()
    assert (model.inherited(), model.size) == (["first"], 3)


def test_a_class_of_an_app_can_be_a_base():
    """The class that derives from it has the user's own class below it."""
    _, cls = cls_of(Base)

    class Derived(cls):
        pass

    assert Derived.__mro__[1] is Base


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({}, "Model: the parameter 'name' is missing"),
        ({"name": 3, "size": "x"}, "'size' is not a whole number"),
        ({"name": "a", "colour": "red"}, "no parameter 'colour'"),
        ({"name": "a", "size": 1.5}, "'size'.*Expected str, int, bool or bytes, got float"),
    ],
)
def test_wrong_parameters(values, said):
    """An object cannot be made with them."""
    _, cls = cls_of(Model)
    with pytest.raises(InvalidError, match=said):
        cls(**values)


def test_parameters_are_keywords():
    """Positions would mean nothing."""
    _, cls = cls_of(Model)
    with pytest.raises(InvalidError, match="Can't use positional arguments"):
        cls("a")


def test_methods_need_an_object():
    """On the class itself they say how to get one."""
    for cls in (cls_of(Model)[1], modal.Cls.from_name("app", "Model")):
        with pytest.raises(AttributeError, match=r"write Model\(\)\.inherited\.remote\(\)"):
            cls.inherited.remote()
    with pytest.raises(AttributeError):
        _ = cls_of(Model)[1].nothing


def test_a_class_that_is_looked_up():
    """Its objects have whatever methods are asked for; nothing of it is here."""
    model = modal.Cls.from_name("app", "Model")(name="a b", size=3)
    assert repr(model.inherited) == "<Function Model.inherited of app 'app'>"
    with pytest.raises(ExecutionError, match="looked up by name"):
        model.inherited.local()
    with pytest.raises(InvalidError, match="Expected str, int, bool or bytes, got list"):
        modal.Cls.from_name("app", "Model")(name=[])


def test_objects_travel():
    """An argument of a call may be an object of a class that is looked up."""
    model = pickle.loads(pickle.dumps(modal.Cls.from_name("app", "Model")(size=3)))
    assert repr(model.inherited) == "<Function Model.inherited of app 'app'>"


def test_objects_travel_to_where_their_class_is(monkeypatch):
    """There they are what they were: also their attributes can be looked at."""
    _, cls = cls_of(Model)
    monkeypatch.setattr(sys.modules[__name__], "Model", cls)
    model = pickle.loads(pickle.dumps(cls(name="a", size=4)))
    assert (model.size, model.replaced.local()) == (4, ("model", "a", 4))
    monkeypatch.delattr(sys.modules[__name__], "Model")
    assert repr(pickle.loads(pickle.dumps(cls(name="a"))).replaced) == "<Function Model.replaced of app 'seed'>"


def test_a_web_method_is_not_called():
    """It has a URL."""
    _, cls = cls_of(Model)
    with pytest.raises(InvalidError, match="A webhook function cannot be invoked"):
        cls(name="a").web.remote(3)
    assert cls(name="a").web.local(3) == 3


def test_methods_outside_their_class_are_not_called_as_they_are():
    """As functions."""
    _, cls = cls_of(Model)
    with pytest.raises(TypeError, match="cannot be called directly"):
        cls(name="a").replaced()


class Custom:
    def __init__(self, x):
        self.x = x


class Unannotated:
    x = modal.parameter()


class Wide:
    x: float = modal.parameter()


class BadDefault:
    x: int = modal.parameter(default="3")


class Generates:
    @modal.fastapi_endpoint()
    def f(self):
        yield 1


class Mixed:
    @modal.method()
    def f(self):
        pass

    @modal.web_server(8000)
    def g(self):
        pass


class Nothing:
    pass


@pytest.mark.parametrize(
    ("raw", "error", "said"),
    [
        (Custom, InvalidError, r"Modal class Custom cannot have a custom constructor \(__init__\) method"),
        (Unannotated, InvalidError, r"All modal.parameter\(\) specifications need to be type-annotated"),
        (Wide, InvalidError, r"Class parameter 'x': float is not a supported modal.parameter\(\) type"),
        (BadDefault, InvalidError, "Class parameter 'x': the default is wrong: Expected int, got str"),
        (Generates, InvalidError, "Webhooks cannot be generators"),
        (Mixed, UnsupportedError, "Mixed.g is a `@modal.web_server`"),
        (cls_of, TypeError, "The @app.cls decorator must be used on a class"),
    ],
)
def test_what_cannot_be_a_class_of_an_app(raw, error, said):
    """It says why."""
    with pytest.raises(error, match=said):
        cls_of(raw)


def test_snap_needs_snapshots():
    """As the reference has it."""
    with pytest.raises(InvalidError, match="must have `enable_memory_snapshot=True` to use `snap=True`"):
        cls_of(Model, enable_memory_snapshot=False)


def test_a_class_in_a_function_travels_by_value_or_not_at_all():
    """As functions."""

    class Inner:
        pass

    with pytest.raises(InvalidError, match="must apply to classes in global scope"):
        cls_of(Inner)
    app, _ = cls_of(Inner, serialized=True)
    assert spec_of(app).serialized


@pytest.mark.parametrize(
    "above", [modal.method(), modal.enter(), modal.exit(), modal.fastapi_endpoint(), modal.concurrent(max_inputs=2)]
)
def test_the_order_of_decorators(above):
    """What belongs below `@app.cls`, or on a method, says so."""
    with pytest.raises(InvalidError, match=r"Cannot stack .* on top of `@app.cls`"):
        above(cls_of(Nothing)[1])
    with pytest.raises(InvalidError, match="already on"):
        modal.App("other").cls()(cls_of(Nothing)[1])


@pytest.mark.parametrize("decorator", [modal.method(), modal.enter(), modal.exit(), modal.asgi_app()])
def test_what_is_for_methods_does_not_go_on_classes(decorator):
    """The hint names the method."""
    for wrapped in (Nothing, modal.concurrent(max_inputs=2)(Nothing)):
        with pytest.raises(InvalidError, match="to a class"):
            decorator(wrapped)


def test_decorators_that_do_not_go_together():
    """Interfaces and lifecycle, calls and the web, and twice the same."""

    def f(self):
        pass

    with pytest.raises(InvalidError, match="Interface decorators cannot be combined with lifecycle decorators"):
        modal.enter()(modal.method()(f))
    with pytest.raises(InvalidError, match="Interface decorators cannot be combined with lifecycle decorators"):
        modal.fastapi_endpoint()(modal.exit()(f))
    with pytest.raises(InvalidError, match="Callable decorators cannot be combined with web interface decorators"):
        modal.method()(modal.fastapi_endpoint()(f))
    with pytest.raises(InvalidError, match="twice"):
        modal.method()(modal.method()(f))
    with pytest.raises(InvalidError, match="cannot both be applied"):
        modal.exit()(modal.enter()(f))


def test_lifecycle_methods_have_no_parameters():
    """Nobody could give them."""
    with pytest.raises(InvalidError, match="can't have parameters, such as 'x'"):
        modal.enter()(lambda self, x: None)


def test_methods_are_no_functions():
    """`@app.function` is for functions."""

    def f(x):
        pass

    f.__qualname__ = "f"
    with pytest.raises(InvalidError, match="are for methods of classes"):
        modal.App("seed").function()(modal.method()(f))


def test_an_object_whose_app_does_not_run_cannot_be_scaled():
    """It says so; a method of that name is the user's own."""
    with pytest.raises(ExecutionError, match="its app does not run"):
        cls_of(Model)[1](name="egg").update_autoscaler(min_containers=1)

    class Own:
        @modal.method()
        def autoscaler(self):
            return "own"

    Own.__qualname__ = "Own"  # as in global scope
    assert cls_of(Own)[1]().autoscaler.local() == "own"


def test_methods_whose_names_have_the_same_hash_are_refused():
    """Their sockets would be one."""

    def f(self):
        pass

    clashing = type("Clashing", (), {name: modal.method()(f) for name in ("m2735", "m5550")})
    with pytest.raises(InvalidError, match="'m2735' and 'm5550' of Clashing cannot be told apart"):
        cls_of(clashing)


@pytest.mark.parametrize("name", ["with_options", "with_concurrency", "with_batching"])
def test_variants_are_not_there_yet(name):
    """They say so."""
    with pytest.raises(UnsupportedError, match=name):
        getattr(modal.Cls.from_name("app", "Model"), name)
    with pytest.raises(UnsupportedError, match=name):
        getattr(cls_of(Model)[1], name)
