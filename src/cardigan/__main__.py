"""`python -m cardigan`, which is what `torchrun -m cardigan` runs."""

from cardigan.cli.main import main

if __name__ == "__main__":
    main()
