"""A web service that knows what each of its users costs."""
