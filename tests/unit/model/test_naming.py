"""Names and addresses: the URL rule against addresses that exist, and what names may look like."""

import pytest

from portico.model import naming
from portico.model.errors import InvalidError

# workspace, app, function, suffix -> the first label of a URL that was seen in public
SEEN = [
    (
        ("modal-labs", "example-spam-detect-llm", "fastapi-app-thundergolfer", "-dev"),
        "modal-labs--example-spam-detect-llm-fastapi-app-thun-ed2e0f-dev",
    ),
    (
        ("utkarshmer05", "variant-analysis-evo2", "Evo2Model.analyze_single_variant", ""),
        "utkarshmer05--variant-analysis-evo2-evo2model-analyze-si-b52940",
    ),
    (
        ("ajiteshshukla1234", "variant-analysis-evo2", "Evo2Model.analyze_single_variant", ""),
        "ajiteshshukla1234--variant-analysis-evo2-evo2model-analy-012766",
    ),
    (
        ("khannaraghav90", "variant-analysis-evo2", "Evo2Model.analyze_single_variant", "-dev"),
        "khannaraghav90--variant-analysis-evo2-evo2model-anal-61f9e3-dev",
    ),
    (
        ("ecorp", "text-to-speech", "really_really_realllly_long_function_name", "-dev"),
        "ecorp--text-to-speech-really-really-realllly-long-fu-179706-dev",
    ),
]


@pytest.mark.parametrize(("parts", "expected"), SEEN)
def test_long_names_are_cut_as_in_addresses_that_exist(parts, expected):
    """The cut, the hash and the suffix are those of real URLs."""
    workspace, app, function, suffix = parts
    label = naming.host_label(workspace, naming.auto_label(app, function), suffix=suffix)
    assert label == expected
    assert len(label) == 63


def test_short_name_stays_whole():
    """A name that fits is not hashed."""
    assert naming.host_label("acme", naming.auto_label("seed", "square")) == "acme--seed-square"


def test_short_ephemeral_name_ends_in_its_suffix():
    """An ephemeral app's label ends in its suffix."""
    assert naming.host_label("acme", "seed-square", suffix="-dev") == "acme--seed-square-dev"


@pytest.mark.parametrize(("suffix", "longest"), [("", 57), ("-dev", 53)])
def test_63_characters_fit(suffix, longest):
    """The longest name that fits stays; one character more is cut."""
    fits = naming.host_label("acme", "x" * longest, suffix=suffix)
    cut = naming.host_label("acme", "x" * (longest + 1), suffix=suffix)
    assert fits == f"acme--{'x' * longest}{suffix}"
    assert (len(fits), len(cut)) == (63, 63)
    assert fits != cut


def test_deployed_and_ephemeral_share_their_hash():
    """The hash leaves the suffix out, so that one can see which two belong together."""
    label = naming.auto_label("app", "f" * 80)
    deployed, ephemeral = naming.host_label("acme", label), naming.host_label("acme", label, suffix="-dev")
    assert deployed[-6:] == ephemeral.removesuffix("-dev")[-6:]


@pytest.mark.parametrize(("app", "function"), [("_seed", "f"), (".seed", "f")])
def test_a_host_that_tls_refuses_is_not_made(app, function):
    """After a workspace of one character, where a name begins with "-": "a---seed-f". Longer ones are fine."""
    with pytest.raises(InvalidError, match="after two characters"):
        naming.host_label("a", naming.auto_label(app, function))
    assert naming.host_label("a", naming.auto_label("seed", function)) == "a--seed-f"
    assert naming.host_label("acme", naming.auto_label(app, function)) == "acme---seed-f"


def test_auto_label_has_only_what_dns_takes():
    """Capitals become small, everything that DNS does not take becomes "-"."""
    assert naming.auto_label("My_App", "Model.größe") == "my-app-model-gr--e"


@pytest.mark.parametrize("label", ["api", "a", "0a", "a--b", "x" * 63])
def test_good_labels(label):
    """A user's label is taken as it is."""
    assert naming.check_label(label) == label


@pytest.mark.parametrize("label", ["", "123", "-api", "api-", "Api", "a_b", "a.b", "ä", "x" * 64, "api\n", "ab--x"])
def test_bad_labels(label):
    """A user's label is never changed; one that DNS would not take is refused."""
    with pytest.raises(InvalidError, match="Invalid label"):
        naming.check_label(label)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65, "ap-" + "a" * 22])
def test_bad_object_names(name):
    """An app's name has no blanks or slashes, is not too long, and is not shaped like an app id."""
    with pytest.raises(InvalidError, match="Invalid app name"):
        naming.check_object_name(name, "app")


@pytest.mark.parametrize("name", ["ab", "a--b", "-a", "a_b", "A", "", "x" * 41])
def test_bad_workspaces(name):
    """A workspace of two characters, or with "--", would make host names that TLS refuses."""
    with pytest.raises(InvalidError, match="Invalid workspace name"):
        naming.check_workspace(name)


@pytest.mark.parametrize(
    ("user", "workspace"), [("Jo Doe", "jo-doe"), ("jo", "jo-ws"), ("___", "local"), ("", "local"), ("a__b", "a-b")]
)
def test_every_user_gets_a_workspace(user, workspace):
    """A workspace made of a user's name is always a good one."""
    assert naming.check_workspace(naming.workspace_from(user)) == workspace


@pytest.mark.parametrize("name", ["", "-a", "_a", "a b", "a.b", "en-1", "x" * 65])
def test_bad_environments(name):
    """An environment's name has letters, digits, "-" and "_", and is not shaped like an id."""
    with pytest.raises(InvalidError, match="Invalid environment name"):
        naming.check_environment(name)


@pytest.mark.parametrize("suffix", ["-a", "a-", "a--b", "A", "a_b", "x" * 21])
def test_bad_web_suffixes(suffix):
    """A suffix is a part of a host name, and "--" in it would look like the end of the workspace."""
    with pytest.raises(InvalidError, match="Invalid web suffix"):
        naming.check_web_suffix(suffix)


@pytest.mark.parametrize(
    ("environment", "suffix"),
    [("staging", "staging"), ("Dev_2", "dev-2"), ("a__b", "a-b"), ("x" * 19 + "_y", "x" * 19)],
)
def test_every_environment_gets_a_web_suffix(environment, suffix):
    """It is made of its name, and is always a good one."""
    assert naming.check_web_suffix(naming.web_suffix_from(environment)) == suffix


@pytest.mark.parametrize(("suffix", "source"), [("", "acme"), ("staging", "acme-staging")])
def test_an_environments_suffix_follows_the_workspace(suffix, source):
    """So its labels differ from those of all other environments."""
    assert naming.source_of("acme", suffix) == source
