"""Maps the two folders beside srbench/ into the package; everything else is in pyproject.toml."""

from setuptools import find_namespace_packages, find_packages, setup

HOMES = {"srbench.baselines": "baselines", "srbench.methods": "methods"}

packages = find_packages(include=["srbench", "srbench.*"])
for name, folder in HOMES.items():
    packages.append(name)
    packages += [
        f"{name}.{found}" for found in find_namespace_packages(folder, exclude=["__pycache__*", "*.__pycache__*"])
    ]

setup(packages=packages, package_dir={"srbench": "srbench"} | HOMES)
