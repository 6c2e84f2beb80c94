"""Makes the project yours.

python -m deploy.adopt --repository …   puts your names in place of the present ones
python -m deploy.adopt terraform        puts what Terraform made into deploy/
python -m deploy.adopt github           sets up the repository on GitHub

A second run changes nothing. Review changes of files with git diff and commit them.
"""

from __future__ import annotations

import argparse

from common.command import run
from deploy.adopt import github, names, terraform


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m deploy.adopt",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names.add_options(parser)
    parser.set_defaults(main=names.main)
    parts = parser.add_subparsers(metavar="terraform | github")
    for part in (terraform, github):
        name = part.__name__.rpartition(".")[2]
        its = parts.add_parser(name, description=part.__doc__, help=(part.__doc__ or "").partition("\n")[0])
        part.add_options(its)
        its.set_defaults(main=part.main)
    options = parser.parse_args()
    options.main(options)


if __name__ == "__main__":
    run(main)
