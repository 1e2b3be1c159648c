"""The business record and the API that it is posted to: what to edit for an API of one's own."""

from .answers import Answers
from .api import BusinessApi, business_api
from .example import NATURAL_KEY, example
from .models import Business, NewBusiness, Record

__all__ = ["NATURAL_KEY", "Answers", "Business", "BusinessApi", "NewBusiness", "Record", "business_api", "example"]
