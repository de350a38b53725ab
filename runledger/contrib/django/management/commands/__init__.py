"""``manage.py runledger``."""
