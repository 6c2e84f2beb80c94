from training.base import cli
from training.remote.command import main

if __name__ == "__main__":
    cli.run(main)
