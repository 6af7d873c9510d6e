"""`python -m tiedexport`."""

from tiedexport.cli import main

if __name__ == "__main__":
    main()
