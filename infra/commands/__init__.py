"""What each command of `kindred` does; they alone in infra may import the other packages (the import contract)."""
