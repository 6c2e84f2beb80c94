from training.base import cli
from training.settings.stage import main

if __name__ == "__main__":
    cli.run(main)
