from training.base import cli
from training.prepare.stage import main

if __name__ == "__main__":
    cli.run(main)
