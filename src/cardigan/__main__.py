"""Entry point of `python -m cardigan` and `torchrun -m cardigan`."""

from cardigan.cli.main import main

if __name__ == "__main__":
    main()
