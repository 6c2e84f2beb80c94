from training.base import cli
from training.review.command import main

if __name__ == "__main__":
    cli.run(main)
