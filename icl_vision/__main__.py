"""`python -m icl_vision`: the `icl-vision` command, for a Python whose scripts are not on the path."""

from icl_vision.cli import main

if __name__ == "__main__":
    main(prog_name="python -m icl_vision")
