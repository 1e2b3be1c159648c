"""Builds what is deployed to Azure as the folder `package/`: the code alone, or with all that it needs to run.

Azure can install the requirements itself (a remote build); the package is then the code and its lists of requirements.
azd builds such a package on any machine, so this module needs the standard library of Python 3.9 only.
"""

import argparse
import compileall
import json
import shutil
import subprocess
import sys
from pathlib import Path
from py_compile import PycInvalidationMode

from dev.durable_backend import BACKENDS, with_backend

ROOT = Path(__file__).resolve().parent.parent
DEPENDENCIES = Path(".python_packages/lib/site-packages")
"""Where the Functions host looks for the installed requirements, inside the package."""


def deployed_names(source: Path) -> list[str]:
    """The files and folders at the top of `source` that are deployed: those that its .funcignore admits as `!/name`."""
    lines = (source / ".funcignore").read_text(encoding="utf-8").splitlines()
    admitted = [line[2:] for line in lines if line.startswith("!/") and not line.endswith("/**")]
    return [name for name in admitted if name != DEPENDENCIES.parts[0]]


def copy_code(source: Path, package: Path, backend: str) -> None:
    """Copy the deployed files, with a host.json that names the durable backend.

    Args:
        source: The project.
        package: Folder to make.
        backend: One of `BACKENDS`.

    Raises:
        FileExistsError: The folder is there already: what an earlier build left would be deployed too.
    """
    package.mkdir(parents=True)
    for name in deployed_names(source):
        if (source / name).is_dir():
            shutil.copytree(source / name, package / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source / name, package / name)
    host = json.loads((source / "host.json").read_text(encoding="utf-8"))
    (package / "host.json").write_text(json.dumps(with_backend(host, backend), indent=2) + "\n", encoding="utf-8")


def pip_arguments(package: Path, python_version: str) -> list[str]:
    """What pip is told to install the requirements of a package into it: wheels for the Linux and the Python of Azure.

    Which requirements there are, where a marker such as `sys_platform` decides, pip still reads off this machine.

    Args:
        package: The folder that `copy_code` made.
        python_version: Version of the Python on Azure, such as `3.13`.
    """
    target = ["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64"]
    target += ["--implementation", "cp", "--python-version", python_version]
    target += ["--abi", f"cp{python_version.replace('.', '')}", "--abi", "abi3", "--abi", "none"]
    options = ["--quiet", "--disable-pip-version-check", "--no-compile", "--only-binary", ":all:"]
    folder = ["--target", str(package / DEPENDENCIES), "--requirement", str(package / "requirements.txt")]
    return ["install", *options, *target, *folder]


def compile_all(package: Path) -> None:
    """Compile all of a package, for a deployed app cannot: its folder is read-only.

    The bytecode is not checked against its source: that would be by time, and archives do not keep times exactly.

    Raises:
        ValueError: A file has bad syntax; it is named on the standard output.
    """
    mode = PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(package, quiet=1, stripdir=str(package), invalidation_mode=mode):
        raise ValueError(f"not all of {package} could be compiled")


def main() -> None:
    """Build the package of this project, in place of an earlier one."""
    parser = argparse.ArgumentParser(prog="python -m dev.package", description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, default="storage", help="where durable state is kept on Azure")
    parser.add_argument(
        "--python-version",
        metavar="3.13",
        help="version on Azure: install the requirements for it and compile; without it, Azure is to do the first",
    )
    arguments = parser.parse_args()
    version, running = arguments.python_version, f"{sys.version_info.major}.{sys.version_info.minor}"
    if version not in (None, running):
        parser.error(
            f"--python-version: expected {running}, the version of this Python, which compiles; got {version}. "
            f"Run `make clean`, then `make package PYTHON=python{version} PYTHON_VERSION={version}`"
        )
    package = ROOT / "package"
    if package.exists():
        shutil.rmtree(package)
    copy_code(ROOT, package, arguments.backend)
    if version:
        subprocess.run([sys.executable, "-m", "pip", *pip_arguments(package, version)], check=True)  # noqa: S603 (pip)
        compile_all(package)


if __name__ == "__main__":
    main()
