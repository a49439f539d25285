"""Which packages are installed: icl_vision and everything below it, found; prompts/ and exporters/, placed inside it.

Everything else about the project is in pyproject.toml, which cannot say "find these and also map those".
prompts/ and exporters/ sit at the top of the checkout because users edit the one and run the other; installed, they are
icl_vision.prompts and icl_vision.exporters, so nothing of ours lands at the top of anybody's import path.
"""

from setuptools import find_packages, setup

MAPPED = {"icl_vision.prompts": "prompts", "icl_vision.exporters": "exporters"}

packages = find_packages(include=["icl_vision", "icl_vision.*"])
for name, folder in MAPPED.items():
    packages += [name, *(f"{name}.{child}" for child in find_packages(folder))]

setup(packages=packages, package_dir=MAPPED)
