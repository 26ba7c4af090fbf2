"""`python -m tproxy` is `zenvoy-tproxy`."""

from tproxy.cli import main

main()
