"""`python -m roadseg_train`: the command line with the interpreter that is running, wherever its scripts are."""

from roadseg_train.cli import main

if __name__ == "__main__":
    main()
