"""`python -m producer` is `nightread`, wherever the console script is not on the PATH."""

from producer.cli import main

main()
