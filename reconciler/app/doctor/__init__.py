"""`zenvoy doctor`: what is wrong, where, and what to do about it. A cluster's own checks are in `app.cluster`."""
