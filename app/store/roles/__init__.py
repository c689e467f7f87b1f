"""The store by role: each module is one kind of question that the rest of the service asks of it."""
