"""The form that runs, exports and quantizes: joined projections, tables, explicit masks."""
