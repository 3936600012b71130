"""`python -m roadseg_train`: the command line without its script."""

from roadseg_train.cli import main

if __name__ == "__main__":
    main()
