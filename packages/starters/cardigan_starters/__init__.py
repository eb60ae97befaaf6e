"""Starters: trained models as files, one folder each. `cardigan.models.starters` reads them; there is no code here."""
