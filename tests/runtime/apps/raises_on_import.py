"""An app with a mistake."""

catalog = undefined_name  # type: ignore[name-defined]  # noqa: F821 - the mistake
