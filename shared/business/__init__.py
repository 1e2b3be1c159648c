"""The business record and the API that it is posted to: what to edit for an API of one's own."""

from .answers import Answers
from .api import COLLECTION, BusinessApi, business_api
from .example import NATURAL_KEY, assigned, example
from .models import Business, NewBusiness, Record

__all__ = [
    "COLLECTION",
    "NATURAL_KEY",
    "Answers",
    "Business",
    "BusinessApi",
    "NewBusiness",
    "Record",
    "assigned",
    "business_api",
    "example",
]
