"""HTTP parts that both servers share: endpoints, access checks, request limits, connection timeouts, errors."""
