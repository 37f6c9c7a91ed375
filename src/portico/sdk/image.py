"""What a container has installed: an immutable chain of steps, and the local files that are added to it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, Concatenate, NoReturn, ParamSpec

from portico.model.errors import InvalidError, UnsupportedError
from portico.model.spec import ImageSpec, ImageStep
from portico.model.variables import check_variables
from portico.sdk import context
from portico.sdk.absent import later, refusal
from portico.sdk.mounts import LocalMount, local_path, module_mount, place_of
from portico.sdk.patterns import NON_PYTHON_FILES, Ignore, ignore_function
from portico.sdk.secret import Secret

P = ParamSpec("P")
Packages = str | list[str]

_PYTHON = re.compile(r"3\.\d{1,2}(\.\d{1,2})?")


@dataclass(frozen=True, slots=True)
class Image:
    """An image definition. Every builder gives a new one.

    spec: what the server builds. mounts: local files that travel with the app's own. warnings: what the user should
    know of it. sealed: files were added that come when a container starts, so nothing can be built on top.
    """

    spec: ImageSpec = field(default_factory=ImageSpec)
    mounts: tuple[LocalMount, ...] = ()
    warnings: tuple[str, ...] = ()
    sealed: bool = False

    def __repr__(self) -> str:
        return "<Image debian_slim" + "".join(f" + {step.kind}" for step in self.spec.steps) + ">"

    # -- where a chain begins -------------------------------------------------------------------------------------
    @staticmethod
    def debian_slim(python_version: str | None = None, force_build: bool = False) -> Image:
        """Python and nothing else. `python_version` is like "3.12"; None takes the server's own."""
        if python_version is not None and not isinstance(python_version, str):
            raise InvalidError(
                f"`python_version` must be a string, not {type(python_version).__name__}.",
                hint=f'Write python_version="{python_version}" (3.10 without quotes would be 3.1).',
            )
        if python_version is not None and not _PYTHON.fullmatch(python_version):
            raise InvalidError(f"Invalid Python version: {python_version!r}.", hint='For example "3.12".')
        return Image(ImageSpec(python_version=python_version, force_build=force_build))

    @staticmethod
    def _from_root(kind: str) -> Callable[..., Image]:
        """A chain that begins with another root filesystem: recorded, and refused by engines that have none."""

        def start(*arguments: object, **options: object) -> Image:
            return Image()._recorded(kind, arguments, options)

        start.__name__ = kind
        start.__doc__ = "Begins with another root filesystem; the process engine refuses it at deploy."
        return start

    # -- Python packages ------------------------------------------------------------------------------------------
    def pip_install(
        self,
        *packages: Packages,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Mapping[str, str | None] | None = None,
        secrets: Collection[Secret] | None = None,
        gpu: str | None = None,
    ) -> Image:
        """Python packages, as pip's requirement strings. Builds use the machine's GPU as it is; `gpu` asks nothing."""
        self._refuse_build_variables("pip_install", env, secrets)
        names = _flat(packages, "pip_install")
        if not names:
            return self
        if any(name.lstrip().startswith("-") for name in names):
            raise InvalidError(
                "The packages of `Image.pip_install` cannot contain options.", hint="Use `extra_options=` for them."
            )
        options = _pip_options(find_links, index_url, extra_index_url, pre, extra_options)
        return self._step("pip_install", names, options, force_build=force_build)

    def uv_pip_install(
        self,
        *packages: Packages,
        requirements: list[str] | None = None,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        uv_version: str | None = None,
        env: Mapping[str, str | None] | None = None,
        secrets: Collection[Secret] | None = None,
        gpu: str | None = None,
    ) -> Image:
        """The same as `pip_install`, which uses uv anyway; also from requirements files."""
        image = self
        if uv_version is not None:
            image = image._warn(
                "`uv_version=` of `Image.uv_pip_install` is left out: the server's own uv builds images."
            )
        for path in requirements or []:
            image = image.pip_install_from_requirements(
                path,
                find_links,
                index_url=index_url,
                extra_index_url=extra_index_url,
                pre=pre,
                extra_options=extra_options,
                force_build=force_build,
            )
        return image.pip_install(
            *packages,
            find_links=find_links,
            index_url=index_url,
            extra_index_url=extra_index_url,
            pre=pre,
            extra_options=extra_options,
            force_build=force_build,
            env=env,
            secrets=secrets,
        )

    def pip_install_from_requirements(
        self,
        requirements_txt: str,
        find_links: str | None = None,
        *,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Mapping[str, str | None] | None = None,
        secrets: Collection[Secret] | None = None,
        gpu: str | None = None,
    ) -> Image:
        """The packages of a local requirements file."""
        self._refuse_build_variables("pip_install_from_requirements", env, secrets)
        text = _local_text(requirements_txt, "pip_install_from_requirements")
        options = _pip_options(find_links, index_url, extra_index_url, pre, extra_options)
        return self._step("requirements", (), options, text=text, force_build=force_build)

    def pip_install_from_pyproject(
        self,
        pyproject_toml: str,
        optional_dependencies: list[str] = [],  # noqa: B006 - the public signature; never written to
        *,
        find_links: str | None = None,
        index_url: str | None = None,
        extra_index_url: str | None = None,
        pre: bool = False,
        extra_options: str = "",
        force_build: bool = False,
        env: Mapping[str, str | None] | None = None,
        secrets: Collection[Secret] | None = None,
        gpu: str | None = None,
    ) -> Image:
        """The dependencies of a local pyproject.toml, and those of its named optional groups."""
        self._refuse_build_variables("pip_install_from_pyproject", env, secrets)
        text = _local_text(pyproject_toml, "pip_install_from_pyproject")
        names = _project_dependencies(text, pyproject_toml, optional_dependencies)
        options = _pip_options(find_links, index_url, extra_index_url, pre, extra_options)
        return self._step("pip_install", names, options, force_build=force_build) if names else self

    # -- settings and commands ------------------------------------------------------------------------------------
    def env(self, vars: Mapping[str, str]) -> Image:
        """Environment variables, for later steps and for the containers."""
        return self._step("env", (), check_variables(vars, "The argument of `Image.env`"))

    def workdir(self, path: str | PurePosixPath) -> Image:
        """The folder in which containers begin."""
        return self._step("workdir", (str(path),))

    def run_commands(
        self,
        *commands: Packages,
        env: Mapping[str, str | None] | None = None,
        secrets: Collection[Secret] | None = None,
        volumes: Mapping[Any, Any] | None = None,
        gpu: str | None = None,
        force_build: bool = False,
    ) -> Image:
        """Shell lines that run in the image's environment while it is built."""
        self._refuse_build_variables("run_commands", env, secrets)
        if volumes:
            raise refusal("volumes= of Image.run_commands")
        lines = _flat(commands, "run_commands")
        image = self
        if image.mounts:
            image = image._warn("Files added with `copy=True` are not there yet while `Image.run_commands` runs.")
        return image._step("run_commands", lines, force_build=force_build) if lines else self

    # -- local files ----------------------------------------------------------------------------------------------
    def add_local_file(self, local_path: str | Path, remote_path: str, *, copy: bool = False) -> Image:
        """A local file, at this place in the app's folder; a remote path that ends in "/" takes the file's name."""
        if str(remote_path).endswith("/"):
            remote_path = f"{remote_path}{Path(local_path).name}"
        return self._add("add_local_file", local_path, remote_path, None, folder=False, copy=copy)

    def add_local_dir(
        self,
        local_path: str | Path,
        remote_path: str,
        *,
        copy: bool = False,
        ignore: Sequence[str] | Ignore = (),
    ) -> Image:
        """A local folder with all that is in it but what `ignore` names, at this place in the app's folder."""
        return self._add("add_local_dir", local_path, remote_path, ignore_function(ignore), folder=True, copy=copy)

    def add_local_python_source(
        self, *modules: str, copy: bool = False, ignore: Sequence[str] | Ignore = NON_PYTHON_FILES
    ) -> Image:
        """Local Python modules and packages, by name, importable in the containers."""
        if not all(isinstance(module, str) for module in modules):
            raise InvalidError("Local Python modules must be named by strings.")
        if not context.is_local():
            return self
        left_out = ignore_function(ignore)
        mounts = tuple(module_mount(module, left_out) for module in modules)
        return replace(self, mounts=self.mounts + mounts, sealed=self.sealed or not copy)

    # -- use ------------------------------------------------------------------------------------------------------
    @contextmanager
    def imports(self) -> Iterator[None]:
        """Imports that work only where this image is. On the user's side a failure is no error; in a container it is
        said on stderr, since the name will be missed there."""
        try:
            yield
        except Exception as error:
            if not context.is_local():
                print(f"An import in `imports()` of {self!r} failed: {error!r}", file=sys.stderr)

    def pipe(self, func: Callable[Concatenate[Image, P], Image], *args: P.args, **kwargs: P.kwargs) -> Image:
        """`func(image, …)`, so that a chain can go on."""
        return func(self, *args, **kwargs)

    # -- what needs a root filesystem, and what is not there -----------------------------------------------------
    from_registry = staticmethod(_from_root("from_registry"))
    from_aws_ecr = staticmethod(_from_root("from_aws_ecr"))
    from_gcp_artifact_registry = staticmethod(_from_root("from_gcp_artifact_registry"))
    from_dockerfile = staticmethod(_from_root("from_dockerfile"))
    from_scratch = staticmethod(_from_root("from_scratch"))
    micromamba = staticmethod(_from_root("micromamba"))

    def apt_install(self, *packages: Packages, **options: object) -> Image:
        """Debian packages."""
        return self._recorded("apt_install", packages, options)

    def micromamba_install(self, *packages: Packages, **options: object) -> Image:
        """Conda packages."""
        return self._recorded("micromamba_install", packages, options)

    def dockerfile_commands(self, *dockerfile_commands: Packages, **options: object) -> Image:
        """Lines of a Dockerfile."""
        return self._recorded("dockerfile_commands", dockerfile_commands, options)

    def run_function(self, raw_f: Callable[..., Any], **options: object) -> Image:
        """A function whose effect on the filesystem is kept."""
        return self._recorded("run_function", (getattr(raw_f, "__qualname__", repr(raw_f)),), options)

    def entrypoint(self, entrypoint_commands: list[str]) -> Image:
        """The image's ENTRYPOINT."""
        return self._recorded("entrypoint", (entrypoint_commands,), {})

    def cmd(self, cmd: list[str]) -> Image:
        """The image's CMD."""
        return self._recorded("cmd", (cmd,), {})

    def shell(self, shell_commands: list[str]) -> Image:
        """The image's SHELL."""
        return self._recorded("shell", (shell_commands,), {})

    def uv_sync(self, uv_project_dir: str = "./", **options: object) -> NoReturn:
        """The environment of a uv project."""
        raise refusal(
            "modal.Image.uv_sync",
            hint='`uv export -o requirements.txt`, then `Image.pip_install_from_requirements("requirements.txt")`.',
        )

    def poetry_install_from_file(self, poetry_pyproject_toml: str, *more: object, **options: object) -> NoReturn:
        """The environment of a Poetry project."""
        raise refusal(
            "modal.Image.poetry_install_from_file",
            hint='`poetry export -o requirements.txt`, then `Image.pip_install_from_requirements("requirements.txt")`.',
        )

    def pip_install_private_repos(self, *repositories: str, **options: object) -> NoReturn:
        """Packages of private Git repositories."""
        raise refusal(
            "modal.Image.pip_install_private_repos",
            hint='`Image.pip_install("git+ssh://git@…")` uses the Git credentials of the server\'s machine.',
        )

    __getattr__ = later(
        "modal.Image", frozenset({"build", "from_id", "from_name", "publish", "logs", "hydrate", "object_id"})
    )

    # -- below ----------------------------------------------------------------------------------------------------
    def _add(
        self, builder: str, given: str | Path, remote: str, ignore: Ignore | None, *, folder: bool, copy: bool
    ) -> Image:
        place = place_of(str(remote), builder)
        if not context.is_local():
            return self  # the files have come with the bundle; here they may not be where they came from
        mount = LocalMount(local_path(given, builder, folder=folder), place, ignore)
        image = self
        if str(remote).startswith("/") and place:
            image = image._warn(
                f"`Image.{builder}`: {str(remote)!r} is {place!r} below the app's folder; open it there."
            )
        return replace(image, mounts=(*image.mounts, mount), sealed=image.sealed or not copy)

    def _step(
        self,
        kind: str,
        arguments: tuple[str, ...],
        options: dict[str, str] | None = None,
        *,
        text: str | None = None,
        force_build: bool = False,
    ) -> Image:
        if self.sealed:
            raise InvalidError(
                f"`Image.{kind}` cannot come after `Image.add_local_*`: those files are added when a container starts.",
                hint="Put the add_local_* calls last in the chain, or give them copy=True.",
            )
        step = ImageStep(kind=kind, arguments=arguments, options=options or {}, text=text)
        spec = replace(
            self.spec, steps=(*self.spec.steps, step), force_build=self.spec.force_build or bool(force_build)
        )
        return replace(self, spec=spec)

    def _recorded(self, kind: str, arguments: tuple[object, ...], options: Mapping[str, object]) -> Image:
        flat = [item for argument in arguments for item in (argument if isinstance(argument, list) else [argument])]
        return self._step(
            kind, tuple(str(item) for item in flat), {name: str(value) for name, value in options.items()}
        )

    def _warn(self, text: str) -> Image:
        return replace(self, warnings=(*self.warnings, text))

    def _refuse_build_variables(
        self, builder: str, env: Mapping[str, str | None] | None, secrets: Collection[Secret] | None
    ) -> None:
        for name, value in (("env", env), ("secrets", secrets)):
            if value:
                raise UnsupportedError(
                    f"`{name}=` of `Image.{builder}` is not supported by this server yet.",
                    hint="`Image.env({...})` sets variables for the later steps, and for the containers too.",
                )


def _flat(arguments: tuple[Packages, ...], builder: str) -> tuple[str, ...]:
    """Strings and lists of strings as one tuple."""
    flat = [item for given in arguments for item in (given if isinstance(given, list | tuple) else [given])]
    if not all(isinstance(item, str) for item in flat):
        raise InvalidError(f"The arguments of `Image.{builder}` must be strings, or lists of strings.")
    return tuple(flat)


def _pip_options(
    find_links: str | None, index_url: str | None, extra_index_url: str | None, pre: bool, extra_options: str
) -> dict[str, str]:
    given = {
        "find_links": find_links,
        "index_url": index_url,
        "extra_index_url": extra_index_url,
        "pre": "true" if pre else None,
        "extra_options": extra_options,
    }
    return {name: value for name, value in given.items() if value}


def _local_text(path: str | Path, builder: str) -> str:
    """The content of a file of the user; in a container nothing, for there the image is built already."""
    if not context.is_local():
        return ""
    return local_path(path, builder, folder=False).read_text("utf-8")


def _project_dependencies(text: str, path: str, groups: Sequence[str]) -> tuple[str, ...]:
    import tomllib  # only here, and `import modal` should be quick

    try:
        project = tomllib.loads(text).get("project", {})
    except tomllib.TOMLDecodeError as error:
        raise InvalidError(f"`Image.pip_install_from_pyproject`: {path} is not TOML: {error}") from None
    if not context.is_local():
        return ()
    if "dependencies" not in project and not groups:
        raise InvalidError(
            f"`Image.pip_install_from_pyproject`: {path} has no [project] dependencies.",
            hint="Dependencies that another tool keeps in a table of its own can be exported to a requirements file.",
        )
    optional = project.get("optional-dependencies", {})
    missing = [group for group in groups if group not in optional]
    if missing:
        raise InvalidError(f"`Image.pip_install_from_pyproject`: {path} has no optional group {', '.join(missing)}.")
    return (*project.get("dependencies", []), *(name for group in groups for name in optional[group]))
