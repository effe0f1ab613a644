"""One form for what producers write in several ways, one family of operators a module; `one_form` applies them."""

__all__: list[str] = []
