"""`python -m policysmith` is the command line."""

from policysmith.cli import main

if __name__ == "__main__":
    main()
