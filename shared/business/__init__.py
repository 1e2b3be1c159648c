"""The business record and the API that it is posted to: what to edit for an API of one's own."""

from .api import BusinessApi, business_api
from .models import Business, NewBusiness, Record

__all__ = ["Business", "BusinessApi", "NewBusiness", "Record", "business_api"]
