"""The business record and the API that it is posted to: what to edit for an API of one's own."""

from .api import BusinessApi, business_api
from .example import NATURAL_KEY, example
from .models import Business, NewBusiness, Record

__all__ = ["NATURAL_KEY", "Business", "BusinessApi", "NewBusiness", "Record", "business_api", "example"]
