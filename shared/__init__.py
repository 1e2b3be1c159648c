"""What `function_app.py` is made of: settings, the business domain, delivery, access tokens and the typed client."""
